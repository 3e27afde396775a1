"""The section on the magnitude of gates."""

import numpy as np

from remoe.analysis.ratios import ratio
from reporting import heatmaps, numbers
from reporting.parts import (
    RECORDING,
    Missing,
    Picture,
    Section,
    absent,
    names_of,
    panel,
    picture,
    title_of,
)
from reporting.runs import Run
from run_log.style import by_layer, from_zero, over_steps


def build(runs: list[Run]) -> Section | Missing:
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
    means = run.record.gate_mean
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
