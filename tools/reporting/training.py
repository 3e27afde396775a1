"""Sections from the scalars of training: loss, and active experts by layer."""

import numpy as np

from reporting import numbers
from reporting.parts import (
    RELU,
    SCALARS,
    Missing,
    Picture,
    Section,
    Table,
    absent,
    overlay,
    panel,
    picture,
    title_of,
    with_tag,
)
from reporting.runs import Run
from run_log import panels
from run_log.scalars import RunLog

_ACTIVE = "moe_relu_active_experts"
_MOST_COLUMNS = 8  # of evaluations in the table


def loss(runs: list[Run]) -> Section | Missing:
    """Training and validation loss."""
    title = "Loss"
    logs = with_tag(runs, "lm loss")
    if not logs:
        return Missing(title, SCALARS)
    return Section(
        title,
        "Cross-entropy of the next token, in nats: 0 would be certainty, "
        "and e to its power is the perplexity.",
        _losses(runs, logs),
        _losses_by_step(with_tag(runs, "lm loss validation")),
        notes=[*_smoothing(logs), *_diverged(logs), *absent(runs, logs)],
    )


def _diverged(logs: dict[str, RunLog]) -> list[str]:
    """Runs whose training loss is infinite or not a number, which no picture shows."""
    notes = []
    for name, log in logs.items():
        steps, values = log.curves["lm loss"]
        if len(lost := steps[~np.isfinite(values)]):
            notes.append(
                f"{name}: the training loss is no finite number at {len(lost)} of {len(steps)} logged "
                f"steps, the first is {numbers.count(lost[0])}."
            )
    return notes


def _losses(runs: list[Run], logs: dict[str, RunLog]) -> list[Picture]:
    """One picture of a single run, two of several."""
    if len(runs) == 1:
        figure, (axis,) = panel()
        panels.draw_loss(axis, runs[0].log)
        return [picture(figure, "loss", "Loss over steps")]
    alt = "loss of the runs over steps"
    drawn = [overlay(panels.draw_training_losses, runs, logs, "loss-training", f"Training {alt}")]
    if validated := with_tag(runs, "lm loss validation"):
        draw, name = panels.draw_validation_losses, "loss-validation"
        drawn.append(overlay(draw, runs, validated, name, f"Validation {alt}"))
    return drawn


def _smoothing(logs: dict[str, RunLog]) -> list[str]:
    width = max(panels.smoothed(log.curves["lm loss"])[1] for log in logs.values())
    if width == 1:
        return []
    return [f"Training loss: thick line mean over {width} logged steps, pale line each of them."]


def _losses_by_step(logs: dict[str, RunLog]) -> list[Table]:
    """Validation losses at the steps of evaluations, where there are several."""
    curves = {name: log.curves["lm loss validation"] for name, log in logs.items()}
    steps = sorted({int(step) for curve in curves.values() for step in curve[0]})
    if len(steps) < 2:
        return []
    places = np.linspace(0, len(steps) - 1, min(len(steps), _MOST_COLUMNS)).round().astype(int)
    chosen = [steps[place] for place in places]
    rows = []
    for name, (at, values) in curves.items():
        known = dict(zip(at.tolist(), values.tolist(), strict=True))
        rows.append([name, *(numbers.decimal(known.get(step)) for step in chosen)])
    return [Table(["validation loss at step", *map(numbers.count, chosen)], rows)]


def active_experts(runs: list[Run]) -> Section | Missing:
    """Active experts by layer, a picture for each run."""
    title = "Active experts by layer"
    logs = {run.name: run.log for run in runs if run.log and run.log.layers(_ACTIVE)}
    if not logs:
        return Missing(title, RELU)
    curves = [curve for log in logs.values() for curve in log.layers(_ACTIVE).values()]
    top = 1.05 * max(float(values.max()) for _, values in curves)
    shown = [run for run in runs if run.name in logs]
    return Section(
        title,
        "Only the mean over all layers is held at k: each layer takes as many experts as it needs. "
        "Dotted lines: where stages II and III begin.",
        [_active_of(run, top, many=len(runs) > 1) for run in shown],
        notes=absent(runs, logs),
    )


def _active_of(run: Run, top: float, many: bool) -> Picture:
    figure, (axis,) = panel()
    panels.draw_active_experts(axis, run.log)
    panels.mark_stages(axis, run.log)
    axis.set(ylim=(0, top), title=title_of("Active experts by layer", run, many))
    name, alt = f"active-experts-{run.name}", f"Active experts by layer over steps, {run.name}"
    return picture(figure, name, alt)
