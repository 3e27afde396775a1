"""One picture of a training run."""

from pathlib import Path

from run_log import panels
from run_log.scalars import RunLog, RunLogError
from run_log.style import line_styles, plt

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
    routed = {"moe_relu_sparsity", "moe_relu_l1_reg_coeff"} <= run.curves.keys()
    rows, columns = (2, 2) if routed else (1, 1)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.6 * columns, 3.6 * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    panels.draw_loss(axes[0, 0], run)
    if routed:
        alone, styles = {"sparsity S": run}, line_styles(["sparsity S"])
        panels.draw_sparsity(axes[0, 1], alone, styles)
        panels.draw_reg_coeff(axes[1, 0], alone, styles)
        panels.draw_active_experts(axes[1, 1], run)
        for axis in (axes[0, 0], *axes[1]):
            panels.mark_stages(axis, run)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)
