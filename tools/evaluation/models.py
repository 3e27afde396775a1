"""A model and its tokenizer from a folder of either form; no code of the folder is run unasked."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data.quiet import quiet_imports
from evaluation.errors import EvaluationError
from evaluation.loading import Loading

HUGGING_FACE, MEGATRON = "Hugging Face", "Megatron"
_HF_CONFIG = "config.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, ready for `generate` and the harness.

    `tokenizer` is None where it was not asked for.
    """

    model: nn.Module
    tokenizer: object
    form: str

    @property
    def max_length(self) -> int:
        """Positions that the model was made for."""
        return self.model.config.max_position_embeddings

    @property
    def num_parameters(self) -> int:
        """Weights of the model, padding of the vocabulary included."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def find_form(folder: Path) -> str:
    """Which form a folder holds.

    Raises:
        EvaluationError: There is no folder, or nothing of either form in it.
    """
    if not folder.is_dir():
        raise EvaluationError(
            f"{folder}: no such folder; give a Hugging Face or Megatron checkpoint"
        )
    if (folder / _HF_CONFIG).is_file():
        return HUGGING_FACE
    if (folder / "latest_checkpointed_iteration.txt").is_file() or (
        folder / "metadata.json"
    ).is_file():
        return MEGATRON
    raise EvaluationError(
        f"{folder}: neither a Hugging Face folder (no {_HF_CONFIG}) nor a Megatron checkpoint"
        " (no latest_checkpointed_iteration.txt, as in the folder that --save named)"
    )


def load(folder: Path, loading: Loading, with_tokenizer: bool = True) -> LoadedModel:
    """Load the model of a folder, with its tokenizer.

    Args:
        folder: Of either form.
        loading: How.
        with_tokenizer: False for a Megatron checkpoint that is given token ids alone; its vocabulary is
            then the padded one.

    Raises:
        EvaluationError: In one line, with the folder, what is wrong and how to mend it.
    """
    form = find_form(folder)
    if loading.device is not None:
        _check_device(loading.device)
    with quiet_imports():
        if form == HUGGING_FACE:
            loaded = _load_hugging_face(folder, loading)
        else:
            loaded = _load_megatron(folder, loading, with_tokenizer)
    # Scores of such a model are numbers like any other: the likeliest token of NaNs is the first one.
    for name, weight in loaded.model.named_parameters():
        if not weight.isfinite().all():
            raise EvaluationError(f"{folder}: {name} holds NaN or infinity: the model is damaged")
    return loaded


def _load_hugging_face(folder: Path, loading: Loading) -> LoadedModel:
    from remoe.hf.loading import load_causal_lm

    _refuse_foreign_code(folder, loading)
    tokenizer = load_tokenizer(loading.tokenizer or folder, loading.trust_remote_code)
    try:
        model = load_causal_lm(folder, loading.dtype or "auto", loading.trust_remote_code)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    model = model.to(loading.device or _default_device()).eval()
    if len(tokenizer) > model.config.vocab_size:
        raise EvaluationError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model"
            f" {model.config.vocab_size}; give the one it was trained with by --tokenizer"
        )
    return LoadedModel(model, tokenizer, HUGGING_FACE)


def _refuse_foreign_code(folder: Path, loading: Loading) -> None:
    """Register our own model type; refuse a folder that brings other code, unless that is trusted."""
    # Registers our own type, too: the installed class runs, not the folder's copy.
    from remoe.hf.foreign_code import foreign_code

    try:
        foreign = foreign_code(folder)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    if foreign and not loading.trust_remote_code:
        raise EvaluationError(f"{foreign}: not run; read it, then say --trust-remote-code")


def _load_megatron(folder: Path, loading: Loading, with_tokenizer: bool) -> LoadedModel:
    from megatron.remoe.inference.causal_lm import MegatronForCausalLM
    from megatron.remoe.inference.stored_model import read_run

    try:
        tokenizer = vocab_size = None
        if with_tokenizer:
            stored = read_run(folder)
            tokenizer = load_tokenizer(loading.tokenizer or _stored_tokenizer(folder, stored.args))
            vocab_size = len(tokenizer)
        dtype = None if loading.dtype is None else getattr(torch, loading.dtype)
        model = MegatronForCausalLM.from_checkpoint(folder, vocab_size, dtype)
    except EvaluationError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise EvaluationError(_about(folder, error)) from error
    if loading.device is not None and torch.device(loading.device).type != model.device.type:
        raise EvaluationError(
            f"--device {loading.device}: Megatron's form runs on {model.device.type} here; leave the"
            " flag out, or hide the GPU by CUDA_VISIBLE_DEVICES="
        )
    return LoadedModel(model, tokenizer, MEGATRON)


def _stored_tokenizer(folder: Path, args: object) -> Path:
    """The tokenizer's folder that the run's own arguments name."""
    kind, path = getattr(args, "tokenizer_type", None), getattr(args, "tokenizer_model", None)
    if kind == "HuggingFaceTokenizer" and path and Path(path).exists():
        return Path(path)
    raise EvaluationError(
        f"{folder}: its run names no tokenizer that is here ({kind}, {path}); give a Hugging Face"
        " tokenizer's folder by --tokenizer"
    )


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> object:
    """The tokenizer of a folder.

    Raises:
        EvaluationError: There is none, or it is damaged or wants code of its own.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder; give a tokenizer's by --tokenizer")
    try:
        return AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged file
        raise EvaluationError(
            f"{folder}: no tokenizer can be loaded from there ({_first_line(error)}); give one by"
            " --tokenizer"
        ) from error


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise EvaluationError(
            f"--device {name}: cannot be used here ({_first_line(error)}); say cpu, or leave it out"
        ) from error


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _about(folder: Path, error: Exception) -> str:
    message = _first_line(error)
    return message if str(folder) in message else f"{folder}: cannot be loaded: {message}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
