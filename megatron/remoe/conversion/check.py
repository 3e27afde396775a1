"""The end of each conversion: both forms compute on real text, one after the other, and must agree."""

import gc
import importlib
import itertools
import json
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor

from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.vocabulary import Vocabulary
from megatron.remoe.inference.stored_model import load_model

TOLERANCE = 1e-4  # of a logit, in fp32
ROWS, LENGTH = 4, 128
MOST_TEXT = ROWS * LENGTH * 16  # characters
# Of plain PyTorch's own error in a low precision against fp32.
TIMES_OWN_ERROR = 2.0


@dataclass(frozen=True)
class Agreement:
    """How far the two forms' logits are apart.

    Attributes:
        difference: Largest absolute difference in fp32.
        tolerance: What it may be.
        low: Error of Megatron's form against fp32 in the low precision that the weights are in, of the
            middle token; None for fp32.
        low_tolerance: Twice plain PyTorch's own error there.
        num_tokens: Compared.
    """

    difference: float
    tolerance: float
    low: float | None
    low_tolerance: float | None
    num_tokens: int

    @property
    def is_good(self) -> bool:
        """Whether both are within what they may be; a number that is none is not."""
        good = self.difference <= self.tolerance
        return good and (self.low is None or self.low <= self.low_tolerance)

    def __str__(self) -> str:
        text = (
            f"logits of {self.num_tokens} tokens: largest difference {self.difference:.3g}, tolerance "
            f"{self.tolerance:g}"
        )
        if self.low is None:
            return text
        return (
            f"{text}; error in the weights' dtype {self.low:.3g}, tolerance {self.low_tolerance:.3g} "
            "(twice PyTorch's own)"
        )


def tokens_of_text(vocabulary: Vocabulary, max_positions: int, path: Path | None) -> Tensor:
    """Real text as token ids ``[rows, length]`` int64.

    Without a tokenizer the bytes of the text stand for tokens.

    Args:
        vocabulary: Of the model.
        max_positions: Longest row.
        path: `--text`: JSON lines with a "text" each (.jsonl), or plain; default English prose of the
            standard library.

    Raises:
        ConversionError: If the file cannot be read, or is too short.
    """
    try:
        text = _read(path) if path else "\n".join(pydoc_data.topics.topics.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"--text {path}: cannot be read ({error})") from error
    length = min(LENGTH, max_positions)
    wanted = text[:MOST_TEXT]
    if vocabulary.tokenizer is None:
        ids = [byte % vocabulary.size for byte in wanted.encode()]
    else:
        ids = vocabulary.tokenizer(wanted, add_special_tokens=False, verbose=False)["input_ids"]
    rows = min(ROWS, len(ids) // length)
    if rows == 0:
        raise ConversionError(f"--text {path}: has {len(ids)} tokens: give at least {length}")
    return torch.tensor(ids[: rows * length]).view(rows, length)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        if path.suffix != ".jsonl":
            return file.read(MOST_TEXT)
        return "\n".join(json.loads(line)["text"] for line in itertools.islice(file, ROWS * LENGTH))


def megatron_logits(folder: Path, vocab_size: int, dtype: torch.dtype) -> Callable:
    """Gives the logits of Megatron's own forward pass on one process.

    Args:
        folder: What `--load` names, or one iteration's.
        vocab_size: Without padding.
        dtype: That the weights are rounded to.
    """

    def run(tokens: Tensor, compute: torch.dtype) -> Tensor:
        model, _ = load_model(folder, compute)
        _round(model, dtype)
        positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        with torch.no_grad():
            # row by row: the tokens of a batch share no computation that is to be tested
            rows = [
                model(row[None], at[None], None) for row, at in zip(tokens, positions, strict=True)
            ]
        return torch.cat(rows)[..., :vocab_size].float()

    return run


def hugging_face_logits(folder: Path, dtype: torch.dtype) -> Callable:
    """Gives the logits of transformers.

    The class is the one that this package or transformers has; no code of the folder is run.

    Args:
        folder: Of the model.
        dtype: That the weights are rounded to.
    """

    def run(tokens: Tensor, compute: torch.dtype) -> Tensor:
        name = json.loads((folder / "config.json").read_text())["architectures"][0]
        own = name.startswith("ReMoE")
        cls = getattr(importlib.import_module("remoe.hf") if own else transformers, name)
        model = cls.from_pretrained(
            folder, dtype=compute, use_safetensors=True, local_files_only=True
        ).eval()
        _round(model, dtype)
        with torch.no_grad():
            return torch.cat([model(row[None]).logits for row in tokens]).float()

    return run


def require_agreement(
    megatron: Callable,
    hugging_face: Callable,
    tokens: Tensor,
    dtype: torch.dtype,
    tolerance: float,
    say: Callable[[str], object],
) -> Agreement:
    """`compare`, said, and an error above tolerance.

    Raises:
        ConversionError: If the forms disagree.
    """
    agreement = compare(megatron, hugging_face, tokens, dtype, tolerance)
    say(str(agreement))
    if not agreement.is_good:
        raise ConversionError(f"the two forms disagree, nothing is left: {agreement}")
    return agreement


def compare(
    megatron: Callable, hugging_face: Callable, tokens: Tensor, dtype: torch.dtype, tolerance: float
) -> Agreement:
    """Run one after the other; never both in memory.

    Args:
        megatron: Of `megatron_logits`.
        hugging_face: Of `hugging_face_logits`.
        tokens: ``[rows, length]``.
        dtype: Of the weights.
        tolerance: Of a logit in fp32.
    """
    quiet = transformers.utils.logging
    quiet.disable_progress_bar()
    ours, truth = (_logits(run, tokens, torch.float32) for run in (megatron, hugging_face))
    difference = _largest(ours, truth)
    if dtype == torch.float32:
        return Agreement(difference, tolerance, None, None, tokens.numel())
    ours, plain = (_logits(run, tokens, dtype) for run in (megatron, hugging_face))
    error, own_error = _middle(ours, truth), _middle(plain, truth)
    return Agreement(difference, tolerance, error, TIMES_OWN_ERROR * own_error, tokens.numel())


def _logits(run: Callable, tokens: Tensor, compute: torch.dtype) -> Tensor:
    logits = run(tokens, compute)
    gc.collect()
    return logits


def _largest(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _middle(one: Tensor, other: Tensor) -> float:
    """Largest difference of the middle token: a TopK choice that rounding turns is no error."""
    return (one - other).abs().amax(dim=-1).median().item()


def _round(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Round weights to the dtype in which the other form has them; its own dtype stays."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
