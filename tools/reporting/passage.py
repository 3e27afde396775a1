"""The section that shows real text, each token on a ground that says how many experts it used."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.models import load_tokenizer
from generation.text_pieces import text_pieces
from remoe.analysis.maps import RoutingMaps
from reporting import numbers
from reporting.parts import ANALYSING, Missing, Section, absent, names_of
from reporting.runs import Run
from routing_analysis.indexed_text import find_beside

LEVELS = 6  # of colour, above the one for no expert at all
_MOST_TOKENS, _MOST_DOMAINS = 256, 8
_TITLE = "Tokens by their number of experts"


@dataclass(frozen=True)
class Piece:
    """A piece of text: its colour from 0 (no expert) to `LEVELS`, and what its tooltip says."""

    text: str
    level: int
    tip: str


@dataclass(frozen=True)
class Passage:
    """A piece of real text, as one run routed it."""

    heading: str
    pieces: list[Piece]


def build(runs: list[Run], tokenizer_folder: Path | None) -> Section | Missing:
    """Passages of each domain, by run.

    Raises:
        EvaluationError: The tokenizer is damaged or another one.
    """
    shown = [run for run in runs if run.maps is not None]
    if not shown:
        return Missing(_TITLE, ANALYSING)
    tokenizers = {run.name: _tokenizer(run, tokenizer_folder) for run in shown}
    readable = [run for run in shown if tokenizers[run.name] is not None]
    if not readable:
        return Missing(_TITLE, ("python tools/report.py RUN --tokenizer FOLDER",))
    top = max(_top(run.maps) for run in readable)
    passages: dict[str, list[Passage]] = {}
    for run in readable:
        for domain, passage in _passages(run, tokenizers[run.name], top).items():
            passages.setdefault(domain, []).append(passage)
    return Section(
        _TITLE,
        "From the calibration text. The darker its ground, the more experts a token used, "
        "mean over layers. Point at a token, or tap it, to see which experts in which layer.",
        passages=passages,
        scale=[
            "none",
            *(f"to {numbers.decimal(top * i / LEVELS, 2)}" for i in range(1, LEVELS + 1)),
        ],
        notes=absent(runs, names_of(readable)),
    )


def _tokenizer(run: Run, folder: Path | None) -> object | None:
    """That of the flag, else of the run's arguments, looked for as analysis does; None if not here."""
    if folder is None:
        stored = run.settings.arguments.get("tokenizer_model")
        folder = find_beside(stored, run.folder) if stored else None
        if folder is None or not folder.is_dir():
            return None
    tokenizer = load_tokenizer(folder)
    largest = int(run.maps.token_ids.max())
    if largest >= len(tokenizer):
        raise EvaluationError(
            f"{folder}: has {len(tokenizer)} tokens, and the text of {run.name} has token "
            f"{largest}; give the tokenizer of the run by --tokenizer"
        )
    return tokenizer


def _top(maps: RoutingMaps) -> float:
    """Experts of the darkest ground: only a hundredth of the tokens have more."""
    return float(np.quantile(maps.routing_map().sum(-1).mean(0), 0.99)) or 1.0


def _passages(run: Run, tokenizer: object, top: float) -> dict[str, Passage]:
    """The first sequence of each domain."""
    maps, length = run.maps, run.maps.sequence_length
    routing_map, names = maps.routing_map(), maps.meta["domain_names"]
    domains, firsts = np.unique(maps.domains, return_index=True)
    found = {}
    for domain, first in list(zip(domains, firsts, strict=True))[:_MOST_DOMAINS]:
        place = slice(first * length, first * length + min(length, _MOST_TOKENS))
        chosen = routing_map[:, place]
        tokens = maps.token_ids[first, :_MOST_TOKENS].tolist()
        pieces = [
            _piece(text, chosen[:, at], top, maps.meta["moe_layers"])
            for text, at in text_pieces(tokenizer, tokens)
        ]
        mean = numbers.decimal(float(chosen.sum(-1).mean()), 2)
        found[names[domain]] = Passage(f"{run.name}, mean {mean} experts a layer", pieces)
    return found


def _piece(text: str, chosen: np.ndarray, top: float, layers: list[int]) -> Piece:
    """Of one token, or of some that make one character; `chosen` is ``[L, tokens, E]``."""
    mean = float(chosen.sum(-1).mean())
    level = min(int(np.ceil(LEVELS * mean / top - 1e-9)), LEVELS)
    by_layer = (
        f"layer {layer}: {', '.join(str(e + 1) for e in np.flatnonzero(used)) or 'none'}"
        for layer, used in zip(layers, chosen.any(1), strict=True)
    )
    tip = f"“{text}” {numbers.decimal(mean, 2)} experts a layer — {'; '.join(by_layer)}"
    return Piece(text.replace("\n", "↵\n"), level, tip)
