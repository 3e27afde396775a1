"""The section on sparsity, lambda and the three stages of ReMoE."""

import numpy as np

from reporting import numbers
from reporting.parts import RELU, Missing, Section, Table, absent, overlay, with_tag
from reporting.runs import Run
from run_log import panels
from run_log.scalars import RunLog
from run_log.stages import SETTLED_WITHIN, STAGE_NAMES, stage_spans

_TAG, _REG_COEFF = "moe_relu_sparsity", "moe_relu_l1_reg_coeff"


def build(runs: list[Run]) -> Section | Missing:
    """Sparsity and its target, lambda, the stages with their lengths."""
    title = "Sparsity, lambda and the three stages"
    logs = with_tag(runs, _TAG)
    if not logs:
        return Missing(title, RELU)
    pictures = [
        overlay(panels.draw_sparsity, runs, logs, "sparsity", "Sparsity and its target over steps")
    ]
    if weighed := with_tag(runs, _REG_COEFF):
        alt = "Lambda over steps, logarithmic"
        pictures.append(overlay(panels.draw_reg_coeff, runs, weighed, "lambda", alt))
    return Section(
        title,
        "Sparsity is the share of (token, expert) pairs that are switched off. Lambda weighs the "
        "penalty on gates: each step it grows while sparsity is below its target and shrinks while it "
        "is above. So training passes through three stages: I near-dense (half of the pairs or more are "
        "on), II sparsifying, III sparse, at the target.",
        pictures,
        [_table(logs)],
        notes=[
            f"Stage III begins at the first logged step within {SETTLED_WITHIN} of the target. "
            f"{_resolution(logs)}",
            *absent(runs, logs),
        ],
    )


def _table(logs: dict[str, RunLog]) -> Table:
    """Steps of each stage, and how near the target stage III stays."""
    rows = []
    for name, log in logs.items():
        spans = {stage: (first, last) for stage, first, last in stage_spans(log)}
        lengths = [_length(spans.get(stage)) for stage in STAGE_NAMES]
        rows.append([name, *lengths, numbers.decimal(log.target_sparsity, 4), _held(log, spans)])
    header = ["run", *(f"stage {stage}" for stage in STAGE_NAMES), "target sparsity"]
    return Table([*header, "sparsity in stage III, mean ± s.d."], rows)


def _length(span: tuple[int, int] | None) -> str:
    if span is None:
        return numbers.NOT_THERE
    first, last = span
    steps = numbers.count(last - first + 1)
    return f"{steps} steps ({numbers.count(first)} to {numbers.count(last)})"


def _held(log: RunLog, spans: dict[str, tuple[int, int]]) -> str:
    if "III" not in spans:
        return numbers.NOT_THERE
    steps, values = log.curves[_TAG]
    held = values[steps >= spans["III"][0]]
    mean, deviation = (numbers.decimal(float(value), 4) for value in (held.mean(), held.std()))
    return f"{mean} ± {deviation}"


def _resolution(logs: dict[str, RunLog]) -> str:
    gap = max(int(np.diff(log.curves[_TAG][0]).max(initial=1)) for log in logs.values())
    return (
        "Every step was logged."
        if gap == 1
        else f"Lengths are known to within {gap} steps, as logged."
    )
