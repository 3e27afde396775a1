"""Looks whether the files that a run names are there, before Megatron starts anything."""

from argparse import Namespace
from pathlib import Path


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
    model = args.tokenizer_model
    if args.tokenizer_type == "HuggingFaceTokenizer" and model and _looks_local(model):
        if not Path(model, "tokenizer.json").is_file() and not Path(model).is_file():
            errors.append(
                f"--tokenizer-model {model}: no tokenizer.json there; make one with "
                "tools/train_tokenizer.py or tools/make_gpt2_tokenizer.py"
            )
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


def _looks_local(path: str) -> bool:
    """A folder, not an `owner/name` of a model hub."""
    return path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).exists()


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
