"""Sections from the scalars of training: loss, sparsity and its stages, lambda, active experts."""

from collections.abc import Callable

import numpy as np

from reporting import numbers
from reporting.parts import absent, Missing, Picture, Section, Table, panel, picture
from reporting.runs import Run
from run_log import panels
from run_log.scalars import RunLog
from run_log.stages import SETTLED_WITHIN, stage_spans

_EVENTS = "pretrain_gpt.py ... --tensorboard-dir RUN/tensorboard"
_RELU = f"{_EVENTS} --moe-relu-routing"


def loss(runs: list[Run]) -> Section | Missing:
    """Training and validation loss."""
    title = "Loss"
    logs = _with(runs, "lm loss")
    if not logs:
        return Missing(title, _EVENTS)
    one = next(iter(logs.values())) if len(runs) == 1 else None
    pictures = []
    if one is not None:
        pictures.append(
            _draw(lambda axis: panels.draw_loss(axis, one), "loss", "Loss over steps", "")
        )
    else:
        draw = panels.draw_training_losses
        pictures.append(_overlay(draw, logs, "loss-training", "Training loss of the runs"))
        if validated := _with(runs, "lm loss validation"):
            draw = panels.draw_validation_losses
            shown = _overlay(draw, validated, "loss-validation", "Validation loss of the runs")
            pictures.append(shown)
    width = max(panels.smoothed(log.curves["lm loss"])[1] for log in logs.values())
    mean = f"mean over {width} neighbouring logged steps" if width > 1 else "as logged"
    return Section(
        title,
        "Cross-entropy of the next token, in nats: 0 would be certainty, "
        "and e to its power is the perplexity.",
        pictures,
        _losses_by_step(runs),
        notes=[
            f"Training loss: thick line {mean}, thin line every logged step.",
            *absent(runs, logs),
        ],
    )


def _losses_by_step(runs: list[Run]) -> list[Table]:
    """Validation losses at the steps of the evaluations, at most eight of them."""
    curves = {
        name: log.curves["lm loss validation"]
        for name, log in _with(runs, "lm loss validation").items()
    }
    steps = sorted({int(step) for curve in curves.values() for step in curve[0]})
    if len(steps) < 2:
        return []
    chosen = sorted({steps[i] for i in np.linspace(0, len(steps) - 1, 8).round().astype(int)})
    rows = []
    for name, (at, values) in curves.items():
        known = dict(zip(at.tolist(), values.tolist(), strict=True))
        rows.append([name, *(numbers.decimal(known.get(step)) for step in chosen)])
    header = ["validation loss at step", *(numbers.count(step) for step in chosen)]
    return [Table(header, rows)]


def sparsity(runs: list[Run]) -> Section | Missing:
    """Sparsity, its target, the stages with their lengths."""
    title = "Sparsity and the three stages"
    logs = _with(runs, "moe_relu_sparsity")
    if not logs:
        return Missing(title, _RELU)
    shown = _overlay(panels.draw_sparsity, logs, "sparsity", "Sparsity over steps and its target")
    return Section(
        title,
        "The share of (token, expert) pairs that are switched off. ReMoE passes through three stages: "
        "I near-dense (at least half of the pairs are on), II sparsifying, III sparse, at the target.",
        [shown],
        [_stage_table(logs)],
        notes=[
            f"Stage III begins at the first logged step within {SETTLED_WITHIN} of the target. "
            f"{_resolution(logs)}",
            *absent(runs, logs),
        ],
    )


def _stage_table(logs: dict[str, RunLog]) -> Table:
    """First step and length of each stage, and how near the target stage III stays."""
    rows = []
    for name, log in logs.items():
        spans = {stage: (start, end) for stage, start, end in stage_spans(log)}
        cells = [
            f"{numbers.count(end - start)} steps (from {numbers.count(start)})"
            for start, end in (spans.get(stage, (0, 0)) for stage in ("I", "II", "III"))
        ]
        cells = [
            cell if stage in spans else numbers.NOT_THERE
            for stage, cell in zip(("I", "II", "III"), cells, strict=True)
        ]
        rows.append([name, *cells, *_held(log, spans.get("III"))])
    header = [
        "run",
        "stage I",
        "stage II",
        "stage III",
        "target",
        "sparsity in stage III, mean ± s.d.",
    ]
    return Table(header, rows)


def _held(log: RunLog, span: tuple[int, int] | None) -> list[str]:
    target = numbers.decimal(log.target_sparsity, 4)
    if span is None:
        return [target, numbers.NOT_THERE]
    steps, values = log.curves["moe_relu_sparsity"]
    held = values[steps >= span[0]]
    return [
        target,
        f"{numbers.decimal(float(held.mean()), 4)} ± {numbers.decimal(float(held.std()), 4)}",
    ]


def _resolution(logs: dict[str, RunLog]) -> str:
    gaps = {
        int(np.diff(log.curves["moe_relu_sparsity"][0]).min(initial=10**9)) for log in logs.values()
    }
    widest = max(gap for gap in gaps if gap < 10**9) if gaps - {10**9} else 1
    if widest == 1:
        return "Every step was logged."
    return f"Sparsity was logged at every {widest}th step, so lengths are known to {widest} steps."


def reg_coeff(runs: list[Run]) -> Section | Missing:
    """Lambda."""
    title = "Lambda, the coefficient of the regulariser"
    logs = _with(runs, "moe_relu_l1_reg_coeff")
    if not logs:
        return Missing(title, _RELU)
    shown = _overlay(panels.draw_reg_coeff, logs, "lambda", "Lambda over steps, logarithmic")
    return Section(
        title,
        "Each step multiplies lambda by alpha where sparsity is below its target and divides it where it "
        "is above. A straight climb at the start is stage I and II; afterwards it hovers.",
        [shown],
        notes=absent(runs, logs),
    )


def active_experts(runs: list[Run]) -> Section | Missing:
    """Active experts by layer, a picture for each run."""
    title = "Active experts by layer"
    logs = {name: log for name, log in _logs(runs).items() if log.layers("moe_relu_active_experts")}
    if not logs:
        return Missing(title, _RELU)
    top = max(
        float(curve[1].max())
        for log in logs.values()
        for curve in log.layers("moe_relu_active_experts").values()
    )
    pictures = [_layers_of(name, log, top, many=len(runs) > 1) for name, log in logs.items()]
    return Section(
        title,
        "Only the mean over all layers is held at k: layers share the experts among themselves as they "
        "need them.",
        pictures,
        notes=absent(runs, logs),
    )


def _layers_of(name: str, log: RunLog, top: float, many: bool) -> Picture:
    def draw(axis):
        panels.draw_active_experts(axis, log)
        panels.mark_stages(axis, log)
        axis.set_ylim(0, top * 1.05)
        if many:
            axis.set_title(f"{panels.wrapped(name)}: active experts by layer")

    return _draw(draw, f"active-experts-{name}", f"Active experts by layer over steps, {name}", "")


def _draw(draw: Callable, name: str, alt: str, caption: str) -> Picture:
    figure, (axis,) = panel()
    draw(axis)
    return picture(figure, name, alt, caption)


def _overlay(draw: Callable, logs: dict[str, RunLog], name: str, alt: str) -> Picture:
    # Long legends get a taller picture, so that lines are not hidden behind them.
    figure, (axis,) = panel(3.6 + 0.12 * max(0, len(logs) - 3))
    draw(axis, logs)
    return picture(figure, name, alt, "")


def _logs(runs: list[Run]) -> dict[str, RunLog]:
    return {run.name: run.log for run in runs if run.log}


def _with(runs: list[Run], tag: str) -> dict[str, RunLog]:
    return {name: log for name, log in _logs(runs).items() if tag in log.curves}
