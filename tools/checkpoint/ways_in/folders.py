"""Folders of Hugging Face models: read without running their code, written where nothing is."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoTokenizer

# Registers ReMoE, too, so that no code beside the weights is needed.
from remoe.hf.foreign_code import foreign_code
from remoe.hf.loading import load_causal_lm

MEGATRON_NAMES = ("latest_checkpointed_iteration.txt", ".metadata")


def model_type(folder: Path) -> str:
    """What config.json says the model is.

    Raises:
        ValueError: If it is no folder of a Hugging Face model.
    """
    if any((folder / name).is_file() for name in MEGATRON_NAMES):
        raise ValueError(
            f"{folder}: is a Megatron checkpoint: convert it first, with "
            f"python tools/checkpoint/convert.py --to hf --input {folder} --output FOLDER"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: is no folder of a Hugging Face model (no config.json with a model_type)"
        ) from error


def check_source(folder: Path, wanted: tuple[str, ...], hints: dict[str, str]) -> None:
    """Refuse a model of another kind.

    Args:
        folder: Of the model.
        wanted: Model types that go.
        hints: For model types that do not, what to do instead.

    Raises:
        ValueError: Naming the type and the mend, or the foreign code that the folder asks to run.
    """
    found = model_type(folder)
    if foreign := foreign_code(folder):
        raise ValueError(f"{foreign}: refused")
    if found not in wanted:
        hint = hints.get(found, f"give one of {', '.join(wanted)}")
        raise ValueError(f"{folder}: is a {found} model: {hint}")


def check_output(folder: Path) -> None:
    """Refuse to write where something is, or where nothing can be written.

    Raises:
        ValueError: If the folder is not new or empty, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output {folder}: is there already: name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=folder.parent).cleanup()
    except OSError as error:
        raise ValueError(f"--output {folder}: cannot be written: {error.strerror}") from error


def load(folder: Path):
    """A model in evaluation mode, in the dtype of its weights, and its tokenizer.

    Raises:
        ValueError: If files are missing or damaged, or the tokenizer is larger than the model's.
    """
    model = load_causal_lm(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged file
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{folder}: cannot be loaded: {line.strip()}") from error
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model "
            f"{model.config.vocab_size}: give it the one that it was trained with"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to write in, which gets the output's name when it is whole and is removed if it is not.

    Raises:
        ValueError: If another run has written the output meanwhile.
    """
    part = output.with_name(f".{output.name}.{os.getpid()}.partial")
    part.mkdir(parents=True)
    try:
        yield part
        check_output(output)
        part.replace(output)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def save(model, tokenizer, output: Path) -> None:
    """Write model, code and tokenizer."""
    with new_folder(output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
