"""Looks whether the files that a run names are there, before Megatron starts anything."""

import contextlib
import tempfile
from argparse import Namespace
from pathlib import Path


class DataError(ValueError):
    """Data that cannot be trained on, said in one line."""


def check_data_paths(args: Namespace) -> None:
    """Check indexed data, tokenizer and checkpoint paths.

    Args:
        args: Parsed, not yet validated by Megatron.

    Raises:
        ValueError: Naming each flag and missing file, with the mend.
    """
    errors = []
    for name in ("data_path", "train_data_path", "valid_data_path", "test_data_path"):
        for prefix in _prefixes(getattr(args, name, None)):
            errors += _missing_data(f"--{name.replace('_', '-')}", prefix)
    # pretrain_gpt.py's default type is HuggingFaceTokenizer
    if args.tokenizer_type in (None, "HuggingFaceTokenizer") and args.tokenizer_model:
        errors += _missing_tokenizer(args.tokenizer_model)
    for name in ("save", "tensorboard_dir", "data_cache_path", "record_routing"):
        errors += _unwritable(f"--{name.replace('_', '-')}", getattr(args, name))
    if args.exit_on_missing_checkpoint and args.load and not Path(args.load).is_dir():
        errors.append(f"--load {args.load}: no such folder")
    if errors:
        raise ValueError("\n  ".join(["files are missing:", *errors]))


def _prefixes(words: list[str] | None) -> list[str]:
    """The prefixes in a blend ``[weight] prefix [weight] prefix ...``."""
    return [word for word in words or [] if not _is_number(word)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _unwritable(flag: str, folder: str | None) -> list[str]:
    """An error unless the folder, or the nearest one above it that is there, can be written to."""
    if folder is None or "://" in folder:
        return []
    nearest = next(
        p for p in (Path(folder).absolute(), *Path(folder).absolute().parents) if p.exists()
    )
    # To the owner of all, every file system looks writable until a file is made.
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=nearest):
        return []
    return [f"{flag} {folder}: cannot write to {nearest}; give another folder"]


def _missing_tokenizer(path: str) -> list[str]:
    # owner/name of a model hub: Transformers looks itself
    on_hub = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    on_hub = on_hub and not Path(path).parent.is_dir()
    if on_hub or Path(path, "tokenizer.json").is_file() or Path(path).is_file():
        return []
    return [
        f"--tokenizer-model {path}: no tokenizer.json there; make one with "
        "tools/train_tokenizer.py or tools/make_gpt2_tokenizer.py"
    ]


def _missing_data(flag: str, prefix: str) -> list[str]:
    if "://" in prefix:
        return []  # object storage: Megatron looks itself
    missing = [s for s in (".idx", ".bin") if not Path(prefix + s).is_file()]
    if not missing:
        return []
    hint = "write it with tools/preprocess_data.py"
    if prefix.endswith((".bin", ".idx")):
        hint = f"give the prefix without its ending: {prefix[:-4]}"
    return [f"{flag} {prefix}: no {' and '.join(prefix + s for s in missing)}; {hint}"]
