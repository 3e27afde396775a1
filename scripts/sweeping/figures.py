"""The figures of a sweep."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from sweeping.collection import Collection
from sweeping.looks import AXES, LOSS, clean, label_of, scale_x, style_of
from sweeping.series import Series, series_over
from sweeping.statistics import Estimate
from sweeping.table import varied_settings

# Settling steps at 182M, E=8, k=1 (arXiv 2412.14711, section on the choice of lambda_0 and alpha): the
# other one of the two is 1e-8 or 1.2.
PAPER_SETTLING = {
    "lambda_0": {1e-16: 138, 1e-12: 136, 1e-8: 110, 1e-4: 55, 1: 92},
    "alpha": {1.05: 414, 1.1: 211, 1.2: 110, 1.3: 80, 1.5: 52},
}


def draw_all(collection: Collection, folder: Path) -> list[Path]:
    """Draw every figure that the sweep has data for; return the files."""
    drawn = [draw_losses(collection, folder / "losses.png")]
    for key in AXES:
        if series := series_over(collection, key):
            if key in PAPER_SETTLING:
                drawn.append(draw_settling(key, series, folder / f"settling_by_{key}.png"))
            else:
                drawn.append(draw_by(collection, key, series, folder / f"loss_by_{key}.png"))
    return drawn


def draw_losses(collection: Collection, file: Path) -> Path:
    """Every configuration's loss, its seeds, and its paired difference from its baseline."""
    configurations = [c for c in collection.configurations.values() if c.seeds][::-1]
    compared = [collection.difference(c) for c in configurations]
    columns = 2 if any(compared) else 1
    size = (6.2 + 3.8 * (columns - 1), 1.3 + 0.34 * len(configurations))
    figure, axes = plt.subplots(
        1, columns, figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    told = varied_settings(collection)
    axes[0, 0].set_yticks(
        range(len(configurations)), [label_of(c.run, told) for c in configurations]
    )
    for y, configuration in enumerate(configurations):
        losses = list(configuration.losses().values())
        style = style_of(configuration.run)
        axes[0, 0].scatter(
            losses, [y] * len(losses), s=12, alpha=0.4, linewidths=0, color=style["color"]
        )
        _point(axes[0, 0], configuration.mean("loss"), y, style)
        if compared[y] is not None:
            _point(axes[0, 1], compared[y], y, style, interval=True)
    axes[0, 0].set_xlabel(f"{LOSS}\nmean ± standard error; small dots: seeds")
    if columns == 2:
        axes[0, 1].axvline(0, color="#999999", linewidth=0.8)
        axes[0, 1].set_xlabel("difference from the baseline (nats)\npaired by seed, 95% interval")
    return _save(figure, axes, file)


def _point(axis: Axes, value: Estimate, y: float, style: dict, interval: bool = False) -> None:
    error = _bars([value], interval)
    axis.errorbar([value.mean], [y], xerr=error, markersize=5, capsize=3, linestyle="none", **style)


def _bars(values: list[Estimate], interval: bool) -> np.ndarray:
    """Half lengths of error bars: standard errors, or of the 95% interval; 0 for a single seed."""
    return np.array(
        [
            (v.interval()[1] - v.mean if interval else v.error) if v.error is not None else 0
            for v in values
        ]
    )


def draw_by(collection: Collection, key: str, series: list[Series], file: Path) -> Path:
    """Loss over a setting, and the difference from the baseline with the same setting."""
    differences = [
        (line, [(x, d) for x, c in line.points if (d := collection.difference(c)) is not None])
        for line in series
    ]
    differences = [(line, points) for line, points in differences if len(points) > 1]
    columns = 2 if differences else 1
    figure, axes = plt.subplots(
        1, columns, figsize=(5.2 * columns, 3.8), squeeze=False, layout="constrained"
    )
    for line in series:
        _line(axes[0, 0], line, [(x, c.mean("loss")) for x, c in line.points])
    _dense_level(axes[0, 0], collection, {c.run.size for line in series for _, c in line.points})
    axes[0, 0].set(title="Loss, ± standard error", ylabel=LOSS)
    for line, points in differences:
        _line(axes[0, 1], line, points, interval=True)
    if differences:
        axes[0, 1].axhline(0, color="#999999", linewidth=0.8)
        baseline = label_of(collection.configurations[_baseline(differences)].run, [])
        axes[0, 1].set(
            title=f"Minus {baseline}, same {key} and seed; 95% interval", ylabel="nats a token"
        )
    for axis in axes.ravel():
        scale_x(axis, key, sorted({x for line in series for x, _ in line.points}))
        axis.legend(frameon=False, fontsize=8)
    return _save(figure, axes, file)


def _baseline(differences: list) -> str:
    return differences[0][0].points[-1][1].baseline


def _line(
    axis: Axes, line: Series, points: list[tuple[float, Estimate]], interval: bool = False
) -> None:
    style = style_of(line.points[0][1].run)
    error = _bars([value for _, value in points], interval)
    means = [value.mean for _, value in points]
    axis.errorbar(
        [x for x, _ in points],
        means,
        yerr=error,
        capsize=3,
        markersize=5,
        label=line.label,
        **style,
    )


def _dense_level(axis: Axes, collection: Collection, sizes: set[str]) -> None:
    """A line at the loss of each dense model of these sizes, with its error."""
    for configuration in collection.configurations.values():
        dense = configuration.run.settings["method"] == "dense" and configuration.run.size in sizes
        if dense and configuration.seeds:
            value = configuration.mean("loss")
            label = label_of(configuration.run, [])
            axis.axhline(value.mean, color="#666666", linestyle="--", linewidth=1, label=label)
            error = value.error or 0
            axis.axhspan(value.mean - error, value.mean + error, color="#666666", alpha=0.15)


def draw_settling(key: str, series: list[Series], file: Path) -> Path:
    """Steps until the sparsity is at its target over lambda_0 or alpha, the paper's beside; the loss."""
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 3.8), squeeze=False, layout="constrained")
    partly = False
    for line in series:
        settled = [(x, value) for x, c in line.points if (value := c.mean("settled")) is not None]
        if settled:
            _line(axes[0, 0], line, settled)
        partly |= _tell_settled(axes[0, 0], line)
        _line(axes[0, 1], line, [(x, c.mean("loss")) for x, c in line.points])
    paper = PAPER_SETTLING[key]
    other = "alpha=1.2" if key == "lambda_0" else "lambda_0=1e-8"
    axes[0, 0].plot(
        list(paper), list(paper.values()), "k:s", markersize=4, label=f"paper, 182M, {other}"
    )
    title = "Sparsity reaches its target, ± standard error"
    title += "\nn/m: only n of m seeds did; mean over those" if partly else ""
    axes[0, 0].set(title=title, ylabel="step", ylim=(0, None))
    axes[0, 1].set(title="Loss, ± standard error", ylabel=LOSS)
    values = sorted({x for line in series for x, _ in line.points} | set(paper))
    for axis in axes.ravel():
        scale_x(axis, key, values)
        axis.legend(frameon=False, fontsize=8)
    return _save(figure, axes, file)


def _tell_settled(axis: Axes, line: Series) -> bool:
    """Write how many seeds settled to each point where not all did; whether there is such a point."""
    partly = False
    for x, configuration in line.points:
        settled, place = configuration.num_settled(), configuration.mean("settled")
        if settled and len(set(settled.split("/"))) > 1:
            partly = True
            at = (x, place.mean if place else 0)
            colour = style_of(configuration.run)["color"]
            axis.annotate(settled, at, (4, 5), textcoords="offset points", color=colour, fontsize=8)
    return partly


def _save(figure: plt.Figure, axes: np.ndarray, file: Path) -> Path:
    for axis in axes.ravel():
        clean(axis)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return file
