"""The section on experts that no token reached, and tokens that reached no expert."""

import numpy as np

from reporting.parts import (
    RECORDING,
    Missing,
    Picture,
    Section,
    absent,
    height_for,
    panel,
    picture,
    styles_of,
)
from reporting.runs import Run
from run_log.panels import legend_of_runs, plot_line
from run_log.scalars import Curve
from run_log.style import from_zero, over_steps

_FEW = 12  # points of a line that need markers to be seen


def build(runs: list[Run]) -> Section | Missing:
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
        plot_line(axis, curve, name, styles, marker="o" if len(curve[0]) < _FEW else "")
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
