"""A text with how many experts each of its tokens used: coloured in a terminal, in columns in a pipe."""

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.models import MEGATRON, LoadedModel
from evaluation.routing import RoutingMeter
from generation.text_pieces import text_pieces

# 256-colour backgrounds from few experts to many; each is readable under black.
_COLOURS = (255, 194, 157, 186, 221, 215, 209)
_RESET = "\x1b[0m"
_NEWLINE = "↵"


@torch.no_grad()
def experts_per_token(loaded: LoadedModel, tokens: Tensor) -> list[float]:
    """Active experts of each token, mean over MoE layers.

    Args:
        loaded: The model.
        tokens: ``[num_tokens]`` int64: the whole text, for generation with a cache sees it in parts.

    Raises:
        EvaluationError: The model has no routers.
    """
    with RoutingMeter(loaded.model, sequence_first=loaded.form == MEGATRON) as meter:
        meter.begin(1, len(tokens))
        loaded.model(tokens[None])
        active = meter.active_experts()
    if active is None:
        raise EvaluationError("--show-routing: the model is dense, it has no experts to route to")
    return active[:, 0].double().mean(0).tolist()


def pieces(tokenizer: object, tokens: list[int], experts: list[float]) -> list[tuple[str, float]]:
    """Text of each token with its number; tokens that make one character are one piece.

    Args:
        tokenizer: Decodes.
        tokens: Of the text.
        experts: A number for each.
    """
    return [
        (text, sum(experts[place]) / len(experts[place]))
        for text, place in text_pieces(tokenizer, tokens)
    ]


def coloured(parts: list[tuple[str, float]]) -> str:
    """The text on coloured ground, and a legend."""
    numbers = [number for _, number in parts]
    low, high = min(numbers), max(numbers)
    step = (high - low) / len(_COLOURS) or 1.0
    text = "".join(_paint(word, _level(number, low, step)) for word, number in parts)
    legend = " ".join(
        _paint(f" {low + (i + 0.5) * step:.2f} ", i)
        for i in range(len(_COLOURS) if high > low else 1)
    )
    mean = sum(numbers) / len(numbers)
    return f"{text}\n\nactive experts a token and layer, mean {mean:.3f}: {legend}"


def _level(number: float, low: float, step: float) -> int:
    return min(int((number - low) / step), len(_COLOURS) - 1)


def _paint(text: str, level: int) -> str:
    # Else the end of a line has no colour, and a terminal paints what is right of it.
    start = f"\x1b[30;48;5;{_COLOURS[level]}m"
    return f"{start}{text.replace(chr(10), f'{_NEWLINE}{_RESET}{chr(10)}{start}')}{_RESET}"


def columns(parts: list[tuple[str, float]]) -> str:
    """A line for each token: its number, a tab, the text as Python writes it."""
    return "\n".join(f"{number:.3f}\t{text!r}" for text, number in parts)
