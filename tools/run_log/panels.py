"""Panels over training steps, each of one run or of several in one pair of axes."""

import textwrap

import numpy as np
from matplotlib.axes import Axes

from run_log.scalars import Curve, RunLog
from run_log.stages import stage_spans
from run_log.style import BLUE, GREEN, GREY, ORANGE, by_layer, line_styles, over_steps

LABEL_WIDTH = 28  # characters a line of a legend
_SMOOTHED_SHARE = 0.03  # of the logged steps in one mean


def smoothed(curve: Curve) -> tuple[Curve, int]:
    """Means over neighbouring points, and over how many; one where there are few points.

    Ends of the curve have fewer neighbours: their means are over those there are.
    """
    steps, values = curve
    width = max(1, round(len(values) * _SMOOTHED_SHARE))
    kernel = np.ones(width)
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    return (steps, np.convolve(values, kernel, mode="same") / counts), width


def wrapped(name: str) -> str:
    """A name over as many lines as it needs."""
    return textwrap.fill(name, LABEL_WIDTH, break_long_words=True, break_on_hyphens=False)


def draw_loss(axis: Axes, run: RunLog) -> None:
    """Training and validation loss of one run."""
    axis.plot(*run.curves["lm loss"], color=BLUE, linewidth=0.8, alpha=0.35)
    axis.plot(*smoothed(run.curves["lm loss"])[0], color=BLUE, linewidth=1.4, label="training")
    if "lm loss validation" in run.curves:
        axis.plot(*run.curves["lm loss validation"], "o-", color=ORANGE, label="validation")
    _finish_loss(axis, "Loss")


def draw_training_losses(axis: Axes, runs: dict[str, RunLog]) -> None:
    """Training loss of several runs: the means in full colour, the steps behind them."""
    for name, style in line_styles(runs).items():
        curve = runs[name].curves.get("lm loss")
        if curve:
            axis.plot(*curve, color=style.colour, linewidth=0.6, alpha=0.15)
            axis.plot(
                *smoothed(curve)[0],
                color=style.colour,
                linestyle=style.dashes,
                linewidth=1.4,
                label=wrapped(name),
            )
    _finish_loss(axis, "Training loss")


def draw_validation_losses(axis: Axes, runs: dict[str, RunLog]) -> None:
    """Validation loss of several runs."""
    _draw_curves(axis, runs, "lm loss validation", marker="o", markersize=4)
    _finish_loss(axis, "Validation loss")


def draw_sparsity(axis: Axes, runs: dict[str, RunLog]) -> None:
    """Sparsity against its target; of a single run also where the stages of ReMoE begin."""
    _draw_curves(axis, runs, "moe_relu_sparsity", alone="sparsity S")
    for target in sorted({run.target_sparsity for run in runs.values()} - {None}):
        label = f"target 1 - k/E = {target:.4g}"
        axis.axhline(target, color=ORANGE if len(runs) == 1 else GREY, linestyle="--", label=label)
    axis.set_title("Sparsity")
    axis.set_ylabel("share of inactive (token, expert) pairs")
    axis.set_ylim(0, 1)
    over_steps(axis)
    axis.legend(frameon=False, loc="lower right")
    for run in runs.values():
        if len(runs) == 1:
            _name_stages(axis, run)


def draw_reg_coeff(axis: Axes, runs: dict[str, RunLog]) -> None:
    """Lambda, on a logarithmic scale."""
    _draw_curves(axis, runs, "moe_relu_l1_reg_coeff", colour=GREEN)
    axis.set_yscale("log")
    axis.set_title(r"Coefficient of the L1 regulariser, $\lambda$")
    axis.set_ylabel(r"$\lambda$ (no unit)")
    over_steps(axis)
    if len(runs) > 1:
        axis.legend(frameon=False)


def draw_active_experts(axis: Axes, run: RunLog) -> None:
    """Mean number of active experts in each layer of one run."""
    layers = run.layers("moe_relu_active_experts")
    for (layer, curve), colour in zip(layers.items(), by_layer(len(layers)), strict=True):
        axis.plot(*curve, color=colour, linewidth=1, label=f"layer {layer + 1}")
    axis.set_title("Active experts by layer")
    axis.set_ylabel("experts a token (mean)")
    axis.set_ylim(bottom=0)
    over_steps(axis)
    if 0 < len(layers) <= 12:
        axis.legend(frameon=False, ncols=2)


def mark_stages(axis: Axes, run: RunLog) -> None:
    """A dotted line where stages II and III begin."""
    for _, start, _ in stage_spans(run)[1:]:
        axis.axvline(start, color=GREY, linewidth=0.8, linestyle=":")


def _name_stages(axis: Axes, run: RunLog) -> None:
    spans = stage_spans(run)
    if not spans:
        return
    mark_stages(axis, run)
    top = axis.get_xaxis_transform()  # x in steps, y in panel heights
    for name, start, end in spans:
        middle = (start + end) / 2
        axis.text(middle, 1.01, name, transform=top, ha="center", color="#555555", fontsize=9)
    axis.set_title("Sparsity; stages I near-dense, II sparsifying, III sparse", pad=16)


def _draw_curves(
    axis: Axes, runs: dict[str, RunLog], tag: str, alone: str = "", colour: str = BLUE, **options
) -> None:
    """One line a run that has the tag; a single run in one colour, called `alone`."""
    for name, style in line_styles(runs).items():
        if tag in runs[name].curves:
            axis.plot(
                *runs[name].curves[tag],
                color=colour if len(runs) == 1 else style.colour,
                linestyle=style.dashes,
                linewidth=1,
                label=alone if len(runs) == 1 else wrapped(name),
                **options,
            )


def _finish_loss(axis: Axes, title: str) -> None:
    axis.set_title(title)
    axis.set_ylabel("cross-entropy (nats a token)")
    over_steps(axis)
    axis.legend(frameon=False)
