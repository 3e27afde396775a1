"""Hugging Face form -> Megatron's form, as a `release` checkpoint that training goes on from."""

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from megatron.remoe.checkpoint.files import TRACKER
from megatron.remoe.checkpoint.saving import tracker_file
from megatron.remoe.conversion.architecture import Architecture, ConversionError
from megatron.remoe.conversion.check import (
    Agreement,
    hugging_face_logits,
    megatron_logits,
    require_agreement,
    tokens_of_text,
)
from megatron.remoe.conversion.extra_states import extra_states
from megatron.remoe.conversion.hf_config import architecture_of
from megatron.remoe.conversion.hf_folder import HuggingFaceReader, read_config, read_kept
from megatron.remoe.conversion.kept_settings import kept_args, kept_number
from megatron.remoe.conversion.megatron_settings import stored_args
from megatron.remoe.conversion.megatron_writer import (
    Piece,
    object_piece,
    piece_size,
    split_into_files,
    tensor_pieces,
    write_checkpoint,
)
from megatron.remoe.conversion.names import MLP_NORM, PADDING, Rule, constants, rules
from megatron.remoe.conversion.options import Options
from megatron.remoe.conversion.refused import check_hugging_face
from megatron.remoe.conversion.vocabulary import Vocabulary, vocabulary_of_folder
from megatron.remoe.conversion.work_folder import check_output, fingerprint, work_folder

RELEASE = "release"
LOCAL, TE = "local", "transformer_engine"
DIVISIBLE_BY = 128  # Megatron's own default
MOST_DIVISIBLE_BY = 65536  # else a number in a file could ask for any amount of memory
LOCAL_NORM = "mlp.linear_fc1.layer_norm_weight"


def to_megatron(options: Options) -> Agreement:
    """Convert a Hugging Face folder; the output appears whole, or not at all.

    Args:
        options: What to convert, and where to.

    Returns:
        How far the two forms' logits are apart.

    Raises:
        ConversionError: In one line, whatever is wrong with the input, the options or the output.
    """
    check_output(options.output)
    config = read_config(options.input)
    check_hugging_face(config, options.input)
    kept = read_kept(options.input)
    vocabulary = vocabulary_of_folder(options.input, options.tokenizer, config.get("vocab_size", 0))
    divisible_by = _divisible_by(options, kept)
    model = architecture_of(config, -(-vocabulary.size // divisible_by) * divisible_by)
    reader, table = HuggingFaceReader(options.input), rules(model)
    reader.check(table, constants(model))
    dtype = options.dtype or reader.dtype("model.embed_tokens.weight")
    args = _args(model, vocabulary, dtype, divisible_by, kept, options)
    tokens = tokens_of_text(vocabulary, model.max_positions, options.text)
    with work_folder(options.output, options.task(fingerprint(reader.files), dtype)) as folder:
        write_release(folder, reader, model, args, dtype, options)
        if vocabulary.folder:
            (folder / "tokenizer").mkdir(exist_ok=True)
            vocabulary.copy_to(folder / "tokenizer")
        return require_agreement(
            megatron_logits(folder, vocabulary.size, dtype),
            hugging_face_logits(options.input, dtype),
            tokens,
            dtype,
            options.tolerance,
            options.say,
        )


def _args(
    model: Architecture,
    vocabulary: Vocabulary,
    dtype: torch.dtype,
    divisible_by: int,
    kept: dict,
    options: Options,
) -> Namespace:
    """The arguments to store."""
    impl = options.transformer_impl or kept.get("transformer_impl") or LOCAL
    if impl not in (LOCAL, TE):
        raise ConversionError(f"--transformer-impl {impl}: give {LOCAL} or {TE}")
    args = stored_args(model, dtype, divisible_by, impl, kept_args(kept))
    has_tokenizer = vocabulary.folder is not None
    args.tokenizer_type = "HuggingFaceTokenizer" if has_tokenizer else "NullTokenizer"
    args.vocab_size = None if has_tokenizer else vocabulary.size
    args.tokenizer_model = str(options.output.absolute() / "tokenizer") if has_tokenizer else None
    return args


def _divisible_by(options: Options, kept: dict) -> int:
    found = options.divisible_by or kept_number(kept, "make_vocab_size_divisible_by")
    if found and not 0 < found <= MOST_DIVISIBLE_BY:
        raise ConversionError(
            f"{options.input}: its vocabulary is to be a multiple of {found}: give "
            f"--make-vocab-size-divisible-by, 1 to {MOST_DIVISIBLE_BY}"
        )
    return found or DIVISIBLE_BY


def write_release(
    root: Path, reader: HuggingFaceReader, model: Architecture, args, dtype: torch.dtype, options
) -> None:
    """Write the checkpoint with its manifest and the tracker file that names it.

    Args:
        root: What `--load` will name; finished files that are there are kept.
        reader: Of the Hugging Face folder.
        model: Its architecture.
        args: To store.
        dtype: Of the weights.
        options: For the size of files.
    """
    folder = root / RELEASE
    folder.mkdir(exist_ok=True)
    if (root / TRACKER).is_file():
        return  # written by a conversion that was ended in its check
    (folder / ".metadata").unlink(missing_ok=True)
    files = split_into_files(_pieces(model, args, dtype), options.max_shard_size)
    total = sum(piece_size(piece) for pieces in files for piece in pieces)
    with tqdm(total=total, unit="B", unit_scale=True, disable=options.quiet) as bar:
        write_checkpoint(folder, files, lambda rule: _join(reader, rule), bar.update)
    with tracker_file(root / TRACKER) as tracker:
        tracker.write(RELEASE)


def _join(reader: HuggingFaceReader, rule: Rule) -> Tensor:
    parts: list[Tensor] = []
    for name, shape in rule.hf.items():
        if name.startswith(PADDING):
            # Kept under the name of Megatron's tensor; of the dtype of the rows before it.
            parts.append(reader.padding(name, shape, parts[0].dtype))
        else:
            parts.append(reader.read(name))
    return rule.join(parts)


def _pieces(model: Architecture, args, dtype: torch.dtype) -> list[Piece]:
    """Every entry of the checkpoint: the run's objects, then the tensors."""
    common = {
        "args": args,
        "checkpoint_version": 3.0,
        "iteration": 0,
        "num_floating_point_operations_so_far": 0,
        "content_metadata": {"singleton_local_shards": False, "chained_optim_avoid_prefix": True},
    }
    pieces = [object_piece("common_state/shard_0_1", common)]
    pieces += [object_piece(name, None) for name in extra_states(model, args.transformer_impl)]
    is_uneven = bool(model.experts) and not all(model.experts.layers)
    for rule in rules(model):
        name, outer = _stored(rule, model, args.transformer_impl, is_uneven)
        pieces += tensor_pieces(rule, name, outer, torch.float32 if rule.is_state else dtype)
    return pieces


def _stored(rule: Rule, model: Architecture, impl: str, is_uneven: bool) -> tuple[str, tuple]:
    """The name of a rule's tensor in the checkpoint, and what it is stacked over."""
    place = rule.place
    if place.layer is None:
        return place.name, ()
    name = place.name
    if name == MLP_NORM and (impl == LOCAL or not model.has_experts(place.layer)):
        name = LOCAL_NORM  # TransformerEngine's own fuses it with a dense layer's projection, too
    expert = () if place.expert is None else ((place.expert, model.experts.num_experts),)
    if is_uneven:
        return f"decoder.layers.{place.layer}.{name}", expert
    return f"decoder.layers.{name}", ((place.layer, model.num_layers), *expert)
