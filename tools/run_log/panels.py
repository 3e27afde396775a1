"""Panels over training steps, each of one run or of several in one pair of axes.

A panel of several runs takes their styles, too: a run looks the same in every panel of a page, also in
those that lack other runs.
"""

import textwrap

import numpy as np
from matplotlib.axes import Axes

from run_log.scalars import Curve, RunLog
from run_log.stages import stage_spans
from run_log.style import BLUE, GREY, ORANGE, LineStyle, by_layer, from_zero, over_steps

Styles = dict[str, LineStyle]

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


def wrapped(name: str, width: int = LABEL_WIDTH) -> str:
    """A name over as many lines as it needs."""
    plain = name.replace("$", r"\$")  # else matplotlib reads a formula
    return textwrap.fill(plain, width, break_long_words=True, break_on_hyphens=False)


def draw_loss(axis: Axes, run: RunLog) -> None:
    """Training and validation loss of one run."""
    axis.plot(*run.curves["lm loss"], color=BLUE, linewidth=0.8, alpha=0.35)
    axis.plot(*smoothed(run.curves["lm loss"])[0], color=BLUE, linewidth=1.4, label="training")
    if "lm loss validation" in run.curves:
        axis.plot(*run.curves["lm loss validation"], "o-", color=ORANGE, label="validation")
    _finish_loss(axis, "Loss")


def draw_training_losses(axis: Axes, runs: dict[str, RunLog], styles: Styles) -> None:
    """Training loss of several runs: the means in full colour, the steps behind them."""
    for name, run in runs.items():
        curve = run.curves["lm loss"]
        axis.plot(*curve, color=styles[name].colour, linewidth=0.6, alpha=0.15)
        plot_line(axis, smoothed(curve)[0], name, styles, linewidth=1.4)
    _finish_loss(axis, "Training loss")


def draw_validation_losses(axis: Axes, runs: dict[str, RunLog], styles: Styles) -> None:
    """Validation loss of several runs."""
    for name, run in runs.items():
        plot_line(axis, run.curves["lm loss validation"], name, styles, marker="o", markersize=4)
    _finish_loss(axis, "Validation loss")


def draw_sparsity(axis: Axes, runs: dict[str, RunLog], styles: Styles) -> None:
    """Sparsity against its target; of a single run also where the stages of ReMoE begin."""
    for name, run in runs.items():
        plot_line(axis, run.curves["moe_relu_sparsity"], name, styles)
    for target in sorted({run.target_sparsity for run in runs.values()} - {None}):
        axis.axhline(target, color=GREY, linestyle="--", label=f"target 1 - k/E = {target:.4g}")
    axis.set_title("Sparsity")
    axis.set_ylabel("share of inactive (token, expert) pairs")
    axis.set_ylim(0, 1)
    over_steps(axis)
    axis.legend(frameon=False, loc="lower right")
    for run in runs.values():
        if len(runs) == 1:
            _name_stages(axis, run)


def draw_reg_coeff(axis: Axes, runs: dict[str, RunLog], styles: Styles) -> None:
    """Lambda, on a logarithmic scale."""
    for name, run in runs.items():
        plot_line(axis, run.curves["moe_relu_l1_reg_coeff"], name, styles)
    if axis.dataLim.ymax > 0:  # else it was 0 all the time
        axis.set_yscale("log")
    axis.set_title(r"Coefficient of the L1 regulariser, $\lambda$")
    axis.set_ylabel(r"$\lambda$ (no unit)")
    over_steps(axis)
    legend_of_runs(axis, styles)


def draw_active_experts(axis: Axes, run: RunLog) -> None:
    """Mean number of active experts in each layer of one run."""
    layers = run.layers("moe_relu_active_experts")
    for (layer, curve), colour in zip(layers.items(), by_layer(len(layers)), strict=True):
        axis.plot(*curve, color=colour, linewidth=1, label=f"layer {layer + 1}")
    axis.set_title("Active experts by layer")
    axis.set_ylabel("experts a token (mean)")
    from_zero(axis)
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


def plot_line(axis: Axes, curve: Curve, name: str, styles: Styles, **options) -> None:
    """The line of a run in its style."""
    style = styles[name]
    options = {"linewidth": 1, "label": wrapped(name)} | options
    axis.plot(*curve, color=style.colour, linestyle=style.dashes, **options)


def legend_of_runs(axis: Axes, styles: Styles) -> None:
    """Names of the runs, where there are several."""
    if len(styles) > 1:
        axis.legend(frameon=False)


def _finish_loss(axis: Axes, title: str) -> None:
    axis.set_title(title)
    axis.set_ylabel("cross-entropy (nats a token)")
    over_steps(axis)
    axis.legend(frameon=False)
