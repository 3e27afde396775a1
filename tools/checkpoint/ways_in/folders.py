"""Folders of Hugging Face models: read without running their code, written where nothing is."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import remoe.hf  # noqa: F401  (registers ReMoE, so that no code beside the weights is needed)

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
        ValueError: Naming the type and the mend.
    """
    found = model_type(folder)
    if found not in wanted:
        hint = hints.get(found, f"give one of {', '.join(wanted)}")
        raise ValueError(f"{folder}: is a {found} model: {hint}")


def check_output(folder: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ValueError: If the folder is not new or empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output {folder}: is there already: name a new folder")


def load(folder: Path):
    """A model in evaluation mode, in the dtype of its weights, and its tokenizer.

    Raises:
        ValueError: If files are missing or damaged.
    """
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", trust_remote_code=False, use_safetensors=True
        )
    except Exception as error:  # transformers and safetensors raise many kinds
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{folder}: cannot be loaded: {line}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


def save(model, tokenizer, folder: Path) -> None:
    """Write model, code and tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
