"""The section on specialisation: which experts a domain's tokens prefer."""

import numpy as np

from remoe.analysis import experts_per_token, specialisation
from remoe.analysis.ratios import ratio
from reporting import heatmaps, numbers
from reporting.parts import (
    ANALYSING,
    Missing,
    Picture,
    Section,
    Table,
    absent,
    names_of,
    panel,
    picture,
    title_of,
)
from reporting.runs import Run


def build(runs: list[Run]) -> Section | Missing:
    """A heat map domain x expert for some layers of each run, and a table by domain."""
    title = "Specialisation by domain"
    shown = [run for run in runs if run.record is not None and _seen(run).sum() > 1]
    if not shown:
        return Missing(title, (f"{ANALYSING[0]} --text DOMAIN.jsonl DOMAIN.jsonl ...",))
    many = len(runs) > 1
    return Section(
        title,
        "Each row is a domain: how its visits are spread over the experts of a layer. White is an even "
        "share, orange an expert that the domain seeks, purple one that it avoids.",
        [_picture(run, many) for run in shown],
        [_table(run, many) for run in shown],
        notes=[
            "Divergence: Kullback-Leibler from an even spread over the experts, in bits; "
            "0 is even, log2 E is one expert for everything.",
            *absent(runs, names_of(shown)),
        ],
    )


def _seen(run: Run) -> np.ndarray:
    """Which domains have tokens in the record."""
    return run.record.domain_tokens > 0


def _names(run: Run) -> list[str]:
    names = run.record.meta["domain_names"]
    return [name for name, seen in zip(names, _seen(run), strict=True) if seen]


def _spread(run: Run) -> np.ndarray:
    """Share of a domain's visits times E, ``[D, L, E]``: 1 is even."""
    shares = specialisation.by_domain(
        run.record.domain_tokens_per_expert[_seen(run)], run.record.domain_tokens[_seen(run)]
    )
    return ratio(shares, shares.mean(-1, keepdims=True))


def _picture(run: Run, many: bool) -> Picture:
    spread, names = _spread(run), [_short(name) for name in _names(run)]
    layers = heatmaps.chosen_layers(spread.shape[1])
    figure, axes = panel(0.75 + 0.24 * len(names), len(layers))
    experts = list(range(1, spread.shape[2] + 1))
    for axis, layer in zip(axes, layers, strict=True):
        image = heatmaps.draw(axis, spread[:, layer], heatmaps.ratios(), experts, names)
        axis.set_title(f"layer {run.layers[layer]}")
    axes[-1].set_xlabel("expert")
    figure.suptitle(title_of("Use of the experts by domain", run, many))
    heatmaps.colour_bar(figure, image, axes, "times an even share")
    name, alt = f"domains-{run.name}", f"Specialisation of experts by domain, {run.name}"
    return picture(figure, name, alt, f"{run.record_name}.")


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _table(run: Run, many: bool) -> Table:
    seen = _seen(run)
    counts, tokens = run.record.domain_tokens_per_expert[seen], run.record.domain_tokens[seen]
    active = experts_per_token.by_domain(counts, tokens).mean(-1)
    divergence = specialisation.divergence_from_uniform(counts)  # [D, L]
    layers = heatmaps.chosen_layers(divergence.shape[1])
    header = [
        "domain",
        "tokens",
        "active experts a token",
        *(f"divergence in layer {run.layers[layer]} (bits)" for layer in layers),
    ]
    rows = [
        [
            name,
            numbers.count(tokens[i]),
            numbers.decimal(active[i], 2),
            *(numbers.decimal(divergence[i, layer], 3) for layer in layers),
        ]
        for i, name in enumerate(_names(run))
    ]
    return Table(header, rows, run.name if many else "")
