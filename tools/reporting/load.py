"""Sections on the work of experts: load, balance, dead experts, tokens without expert, gates."""

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
    height_for,
    names_of,
    panel,
    picture,
    styles_of,
    title_of,
)
from reporting.runs import Run
from run_log.panels import legend_of_runs, plot_line
from run_log.scalars import Curve
from run_log.style import by_layer, from_zero, over_steps


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


def unused(runs: list[Run]) -> Section | Missing:
    """Dead experts and tokens without expert over steps."""
    title = "Dead experts and tokens without expert"
    found = {run.name: _unused_curves(run) for run in runs}
    curves = {name: pair for name, pair in found.items() if pair}
    if not curves:
        return Missing(title, RECORDING)
    idle = {name: pair[1] for name, pair in curves.items()}
    pictures = [_unused(runs, idle, "Tokens without expert", "% of (token, layer) pairs")]
    dead = {name: pair[0] for name, pair in curves.items()}
    notes = absent(runs, curves)
    if any(values.any() for _, values in dead.values()):
        pictures.append(_unused(runs, dead, "Dead experts, of all layers", "experts"))
    else:
        notes = ["No expert was dead at any logged step.", *notes]
    return Section(
        title,
        "A dead expert saw no token. A token without expert skips the layer: under ReLU routing that is "
        "a choice of the model, and nothing is lost but that layer's work.",
        pictures,
        notes=notes,
    )


def _unused(runs: list[Run], curves: dict[str, Curve], title: str, unit: str) -> Picture:
    figure, (axis,) = panel(height_for(runs))
    styles = styles_of(runs)
    for name, curve in curves.items():
        plot_line(axis, curve, name, styles)
    axis.set(title=title, ylabel=unit)
    from_zero(axis)
    over_steps(axis)
    legend_of_runs(axis, styles)
    return picture(figure, title.split(",")[0].lower().replace(" ", "-"), f"{title} over steps")


def _unused_curves(run: Run):
    """(steps, dead experts) and (steps, percent of pairs without expert), or None."""
    dead, idle = run.curve("moe_relu_dead_experts"), run.curve("moe_relu_tokens_without_expert")
    if dead and idle:
        return dead, (idle[0], 100 * idle[1])
    if not run.snapshots:
        return None
    steps = np.array([snapshot.step for snapshot in run.snapshots])
    dead = np.array([(snapshot.tokens_per_expert == 0).sum() for snapshot in run.snapshots])
    idle = [s.experts_per_token[:, 0].mean() / s.num_tokens for s in run.snapshots]
    return (steps, dead), (steps, 100 * np.array(idle))


def gates(runs: list[Run]) -> Section | Missing:
    """Mean gate of the active pairs, by layer over steps and by expert at the end."""
    title = "Magnitude of the gates"
    shown = [
        run for run in runs if run.record is not None and np.isfinite(run.record.gate_sum).all()
    ]
    if not shown:
        return Missing(title, RECORDING)
    many = len(runs) > 1
    pictures = [_gates_over_steps(run, many) for run in shown if len(run.snapshots) > 1]
    pictures += [_gates_now(run, many) for run in shown]
    return Section(
        title,
        "A gate is the factor on an expert's output. Means are over the pairs that are active; a TopK "
        "softmax has gates below 1, a ReLU any size, and the regulariser pulls on them.",
        pictures,
        notes=absent(runs, names_of(shown)),
    )


def _gates_over_steps(run: Run, many: bool) -> Picture:
    sums = np.stack([s.gate_sum.sum(-1) for s in run.snapshots])
    means = ratio(sums, np.stack([s.tokens_per_expert.sum(-1) for s in run.snapshots]))
    steps = [snapshot.step for snapshot in run.snapshots]
    figure, (axis,) = panel()
    for layer, colour in enumerate(by_layer(means.shape[1])):
        axis.plot(steps, means[:, layer], color=colour, label=f"layer {run.layers[layer]}")
    axis.set(title=title_of("Mean gate by layer", run, many), ylabel="gate (no unit)")
    from_zero(axis)
    over_steps(axis)
    if means.shape[1] <= 12:
        axis.legend(frameon=False, ncols=2)
    return picture(figure, f"gates-over-steps-{run.name}", f"Mean gate over steps, {run.name}")


def _gates_now(run: Run, many: bool) -> Picture:
    means = ratio(run.record.gate_sum, run.record.tokens_per_expert)
    figure, (axis,) = panel(1.2 + 0.32 * len(means) if len(means) < 12 else 5)
    experts = list(range(1, means.shape[1] + 1))
    norm = heatmaps.from_zero(np.nanmax(means, initial=0))
    image = heatmaps.draw(axis, means, norm, experts, run.layers, numbers=True)
    axis.set(xlabel="expert", ylabel="layer", title=title_of("Mean gate by expert", run, many))
    heatmaps.colour_bar(figure, image, [axis], "gate (no unit)")
    largest = float(np.nanmax(run.record.gate_max, initial=0))
    caption = (
        f"{run.record_name}; largest single gate {numbers.decimal(largest, 2)}; × never active."
    )
    return picture(
        figure, f"gates-{run.name}", f"Mean gate by layer and expert, {run.name}", caption
    )
