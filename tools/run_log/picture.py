"""One picture of a training run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from run_log.scalars import RunLog, RunLogError
from run_log.stages import find_stages

# Okabe-Ito: told apart by colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
STAGE_NAMES = ("I", "II", "III")
PICTURE_SUFFIXES = (".png", ".pdf", ".svg")


def draw_run(run: RunLog, output: Path, title: str) -> None:
    """Draw a run to a PNG, PDF or SVG: loss alone, or with routing four panels.

    Raises:
        RunLogError: If the run logged no loss, or the ending of `output` names no picture format.
    """
    if "lm loss" not in run.curves:
        raise RunLogError("the run logged no 'lm loss'")
    if output.suffix.lower() not in PICTURE_SUFFIXES:
        raise RunLogError(f"--output {output}: end it in {', '.join(PICTURE_SUFFIXES)}")
    routed = "moe_relu_sparsity" in run.curves
    rows, columns = (2, 2) if routed else (1, 1)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.6 * columns, 3.6 * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    _draw_loss(axes[0, 0], run)
    if routed:
        _draw_sparsity(axes[0, 1], run)
        _draw_reg_coeff(axes[1, 0], run)
        _draw_active_experts(axes[1, 1], run)
        _draw_stages(axes.ravel(), run)
    for axis in axes.ravel():
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)


def _draw_loss(axis: Axes, run: RunLog) -> None:
    axis.plot(*run.curves["lm loss"], color=BLUE, linewidth=1, label="training")
    if "lm loss validation" in run.curves:
        axis.plot(*run.curves["lm loss validation"], "o-", color=ORANGE, label="validation")
    axis.set_title("Loss")
    axis.set_ylabel("cross-entropy (nats a token)")
    axis.legend(frameon=False)


def _draw_sparsity(axis: Axes, run: RunLog) -> None:
    axis.plot(*run.curves["moe_relu_sparsity"], color=BLUE, linewidth=1, label="sparsity S")
    if run.target_sparsity is not None:
        label = f"target 1 - k/E = {run.target_sparsity:.4g}"
        axis.axhline(run.target_sparsity, color=ORANGE, linestyle="--", label=label)
    axis.set_title("Sparsity")
    axis.set_ylabel("inactive (token, expert) pairs")
    axis.set_ylim(0, 1)
    axis.legend(frameon=False, loc="lower right")


def _draw_reg_coeff(axis: Axes, run: RunLog) -> None:
    axis.plot(*run.curves["moe_relu_l1_reg_coeff"], color=GREEN, linewidth=1)
    axis.set_yscale("log")
    axis.set_title("Coefficient of the L1 regulariser")
    axis.set_ylabel(r"$\lambda$")


def _draw_active_experts(axis: Axes, run: RunLog) -> None:
    layers = run.layers("moe_relu_active_experts")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, max(len(layers), 1)))
    for (layer, curve), colour in zip(layers.items(), colours, strict=False):
        axis.plot(*curve, color=colour, linewidth=1, label=f"layer {layer + 1}")
    axis.set_title("Active experts by layer")
    axis.set_ylabel("experts a token (mean)")
    axis.set_ylim(bottom=0)
    if 0 < len(layers) <= 12:
        axis.legend(frameon=False, ncols=2)


def _draw_stages(axes, run: RunLog) -> None:
    """A dotted line where a stage begins, in every panel; their numbers over the sparsity."""
    if run.target_sparsity is None:
        return
    steps, sparsity = run.curves["moe_relu_sparsity"]
    stages = find_stages(steps, sparsity, run.target_sparsity)
    starts = [s for s in (int(steps[0]), stages.sparsifying, stages.settled) if s is not None]
    for axis in axes:
        for start in starts[1:]:
            axis.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
    top = axes[1].get_xaxis_transform()  # x in steps, y in panel heights
    for name, start, end in zip(STAGE_NAMES, starts, [*starts[1:], int(steps[-1])], strict=False):
        middle = (start + end) / 2
        axes[1].text(middle, 1.01, name, transform=top, ha="center", color="#555555", fontsize=9)
    title = "Sparsity; stages I near-dense, II sparsifying, III sparse"
    axes[1].set_title(title, pad=16)
