"""Sections on the work of experts: load over layers and steps, balance."""

import numpy as np

from remoe.analysis import load_balance
from remoe.analysis.ratios import ratio
from reporting import heatmaps, numbers
from reporting.parts import (
    RECORDING,
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


def load(runs: list[Run]) -> Section | Missing:
    """Heat maps of layer x expert, and of a layer's experts over steps."""
    title = "Load of the experts"
    shown = [run for run in runs if run.record is not None]
    if not shown:
        return Missing(title, RECORDING)
    top = max(100 * _share(run).max() for run in shown)
    pictures = [_load_now(run, top, len(runs) > 1) for run in shown]
    pictures += [_load_over_steps(run, len(runs) > 1) for run in shown if len(run.snapshots) > 1]
    return Section(
        title,
        "How many of the tokens visit each expert. A row of one colour is an evenly used layer; a dark "
        "cell is an expert that hardly works.",
        pictures,
        notes=absent(runs, names_of(shown)),
    )


def _share(run: Run) -> np.ndarray:
    """Share of the tokens that visit each expert, ``[L, E]``."""
    return ratio(run.record.tokens_per_expert, run.record.num_tokens)


def _load_now(run: Run, top: float, many: bool) -> Picture:
    share = 100 * _share(run)
    figure, (axis,) = panel(1.2 + 0.32 * len(share) if len(share) < 12 else 5)
    image = heatmaps.draw(
        axis,
        share,
        heatmaps.from_zero(top),
        list(range(1, share.shape[1] + 1)),
        run.layers,
        numbers=True,
    )
    axis.set(
        xlabel="expert", ylabel="layer", title=title_of("Tokens that visit each expert", run, many)
    )
    heatmaps.colour_bar(figure, image, [axis], "% of the tokens")
    caption = f"{run.record_name}, {numbers.count(run.record.num_tokens)} tokens."
    return picture(figure, f"load-{run.name}", f"Load by layer and expert, {run.name}", caption)


def _load_over_steps(run: Run, many: bool) -> Picture:
    """Load relative to the layer's mean: one row of panels a layer."""
    loads = np.stack([snapshot.tokens_per_expert for snapshot in run.snapshots])  # [steps, L, E]
    relative = ratio(loads, loads.mean(-1, keepdims=True))
    layers = heatmaps.chosen_layers(loads.shape[1])
    figure, axes = panel(1.75, len(layers))
    steps = [snapshot.step for snapshot in run.snapshots]
    for axis, layer in zip(axes, layers, strict=True):
        image = heatmaps.over_steps(axis, relative[:, layer].T, heatmaps.ratios(), steps)
        axis.set(ylabel="expert", title=f"layer {run.layers[layer]}")
    axes[-1].set_xlabel("step")
    figure.suptitle(title_of("Load over steps", run, many))
    heatmaps.colour_bar(figure, image, axes, "times the mean of the layer")
    caption = "1 (white) is a fair share of the layer's load at that step, 2 double of it."
    return picture(figure, f"load-over-steps-{run.name}", f"Load over steps, {run.name}", caption)


def balance(runs: list[Run]) -> Section | Missing:
    """The table of load balance by layer."""
    title = "Load balance by layer"
    shown = [run for run in runs if run.record is not None]
    if not shown:
        return Missing(title, RECORDING)
    rows = [row for run in shown for row in _balance_rows(run, len(runs) > 1)]
    header = [
        "layer" if len(runs) == 1 else "run, layer",
        "active experts a token",
        "coefficient of variation",
        "fullest expert / mean",
        "experts seen by under 1/64 of tokens",
        "dead experts",
        "tokens without expert",
    ]
    return Section(
        title,
        "Even use has a coefficient of variation of 0 and a fullest expert at 1 times the mean. Where "
        "each device holds one expert, a step waits for the fullest.",
        tables=[Table(header, rows)],
        notes=absent(runs, names_of(shown)),
    )


def _balance_rows(run: Run, many: bool) -> list[list[str]]:
    record, loads = run.record, run.record.tokens_per_expert
    columns = (
        [numbers.decimal(value, 2) for value in record.active_experts],
        [numbers.decimal(value, 2) for value in load_balance.coefficient_of_variation(loads)],
        [numbers.decimal(value, 2) for value in load_balance.max_over_mean(loads)],
        [
            numbers.percent(value, 0)
            for value in load_balance.fraction_below(loads, int(record.num_tokens))
        ],
        [numbers.count(value) for value in record.dead_experts],
        [numbers.percent(value) for value in record.tokens_without_expert],
    )
    prefix = f"{run.name}, " if many else ""
    names = [f"{prefix}layer {layer}" for layer in run.layers]
    return [list(row) for row in zip(names, *columns, strict=True)]
