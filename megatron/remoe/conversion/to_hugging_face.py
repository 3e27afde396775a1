"""Megatron's form -> Hugging Face form."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from megatron.remoe.checkpoint.manifest import MANIFEST
from megatron.remoe.checkpoint.stored_run import StoredRun
from megatron.remoe.conversion.architecture import Architecture
from megatron.remoe.conversion.check import (
    Agreement,
    hugging_face_logits,
    megatron_logits,
    require_agreement,
    tokens_of_text,
)
from megatron.remoe.conversion.families import family_of
from megatron.remoe.conversion.hf_config import config_of
from megatron.remoe.conversion.hf_folder import KEPT, PADDING_FILE, SETTINGS_FILE
from megatron.remoe.conversion.kept_settings import kept_settings
from megatron.remoe.conversion.megatron_reader import MegatronReader
from megatron.remoe.conversion.megatron_settings import architecture_of
from megatron.remoe.conversion.names import PADDING, Place, Rule, constants, rules
from megatron.remoe.conversion.options import Options, dtype_name
from megatron.remoe.conversion.refused import check_megatron
from megatron.remoe.conversion.shards import (
    Planned,
    Shard,
    split_into_shards,
    write_index,
    write_shard,
)
from megatron.remoe.conversion.vocabulary import Vocabulary, vocabulary_of_run
from megatron.remoe.conversion.work_folder import check_output, fingerprint, work_folder
from megatron.remoe.inference.stored_model import read_run

EMBEDDING = Place("embedding.word_embeddings.weight")


def to_hugging_face(options: Options) -> Agreement:
    """Convert a torch_dist checkpoint of any layout; the output appears whole, or not at all.

    Args:
        options: What to convert, and where to.

    Returns:
        How far the two forms' logits are apart.

    Raises:
        ConversionError: In one line, whatever is wrong with the input, the options or the output.
    """
    check_output(options.output)
    stored = read_run(options.input, options.ckpt_step)
    check_megatron(stored.args, stored.folder)
    reader = MegatronReader(stored.folder)
    rows = reader.shape(EMBEDDING)[0]
    vocabulary = vocabulary_of_run(stored.args, options.tokenizer, rows)
    model = architecture_of(stored.args, vocabulary.size, rows, _reached_target(reader, stored))
    table = rules(model)
    reader.check(table)
    dtype = options.dtype or reader.dtype(EMBEDDING)
    tokens = tokens_of_text(vocabulary, model.max_positions, options.text)
    task = options.task(fingerprint(_files(stored.folder)), dtype)
    with work_folder(options.output, task) as folder:
        write_weights(folder, reader, table, constants(model), dtype, options)
        _write_settings(folder, model, vocabulary, stored, dtype)
        return require_agreement(
            megatron_logits(stored.folder, vocabulary.size, dtype),
            hugging_face_logits(folder, dtype),
            tokens,
            dtype,
            options.tolerance,
            options.say,
        )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST]


def _reached_target(reader: MegatronReader, stored: StoredRun) -> bool | None:
    """Whether lambda's warm-up is over; None where the run had none."""
    layers = (
        Place("mlp.router.state.reached_target", layer) for layer in range(stored.args.num_layers)
    )
    values = [bool(reader.read(place)) for place in layers if reader.has(place)]
    return all(values) if values else None


def write_weights(
    folder: Path,
    reader: MegatronReader,
    table: list[Rule],
    zeros: dict[str, tuple[int, ...]],
    dtype: torch.dtype,
    options: Options,
) -> None:
    """Write every shard and their index, one tensor (or one layer's experts) in memory at a time.

    Args:
        folder: To write in; finished shards that are there are kept.
        reader: Of the checkpoint.
        table: Of its model.
        zeros: What the architecture has besides.
        dtype: Of the weights.
        options: For the size of shards.
    """
    groups: list = []
    padding = Shard(PADDING_FILE)
    for rule in table:
        planned = [
            Planned(name, shape, torch.float32 if rule.is_state else dtype)
            for name, shape in rule.hf.items()
        ]
        ours = [tensor for tensor in planned if not tensor.name.startswith(PADDING)]
        if ours:
            groups.append((ours, partial(_split, reader, rule, len(ours))))
        if len(ours) < len(planned):
            padding.groups.append((planned[len(ours) :], partial(_padding, reader, rule)))
    for name, shape in zeros.items():
        groups.append(([Planned(name, shape, dtype)], partial(_zeros, shape)))
    shards = split_into_shards(groups, options.max_shard_size)
    shards_to_write = [*shards, padding] if padding.groups else shards
    total = sum(shard.nbytes for shard in shards_to_write)
    with tqdm(total=total, unit="B", unit_scale=True, disable=options.quiet) as bar:
        for shard in shards_to_write:
            write_shard(folder / shard.name, shard, bar.update)
    write_index(folder, shards)


def _split(reader: MegatronReader, rule: Rule, num: int) -> list[torch.Tensor]:
    return list(rule.split(reader.read(rule.place)))[:num]


def _padding(reader: MegatronReader, rule: Rule) -> list[torch.Tensor]:
    return list(rule.split(reader.read(rule.place)))[1:]


def _zeros(shape: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.zeros(shape)]


def _write_settings(
    folder: Path, model: Architecture, vocabulary: Vocabulary, stored: StoredRun, dtype: torch.dtype
) -> None:
    config = config_of(model, dtype_name(dtype), vocabulary.special_tokens)
    _write_json(folder / "config.json", config)
    tokens = {name: value for name, value in vocabulary.special_tokens.items() if value is not None}
    _write_json(folder / "generation_config.json", tokens)
    (folder / KEPT).mkdir(exist_ok=True)
    _write_json(folder / SETTINGS_FILE, kept_settings(stored.args, model))
    vocabulary.copy_to(folder)
    if family_of(model) == "remoe":
        _export_code()(folder)


def _export_code() -> Callable[[Path], None]:
    from remoe.hf import export_code  # transformers' modelling takes long to import

    return export_code


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
