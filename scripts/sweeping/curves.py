"""Loss curves of a sweep, one panel for all that share their shape."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from sweeping.collection import Collection, Configuration
from sweeping.looks import clean, label_of, style_of
from sweeping.measure import Measured
from sweeping.table import varied_settings

PANELS_A_ROW = 4
PANEL_SETTINGS = ("size", "E", "k", "G")
FIRST_PART = 10  # what falls in the first tenth of the steps is cut off: all else differs by less
DASHES = ("-", "--", ":", "-.")


def draw_curves(collection: Collection, file: Path) -> Path:
    """Training loss, smoothed, and validation loss: means over seeds, one panel a shape."""
    panels = _panels(collection)
    rows = -(-len(panels) // PANELS_A_ROW)
    columns = min(len(panels), PANELS_A_ROW)
    size = (4.2 * columns + 1, 3.4 * rows) if len(panels) > 1 else (7.5, 5)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for axis, (title, configurations) in zip(axes.ravel(), panels.items(), strict=False):
        told = [] if title else varied_settings(collection)
        for configuration, look in zip(configurations, _looks(configurations), strict=True):
            _draw(axis, configuration, look, label_of(configuration.run, told))
        axis.set_title(title, fontsize=10)
        axis.legend(frameon=False, fontsize=7)
    for axis in axes.ravel()[len(panels) :]:
        axis.remove()
    tops = [run.training[1][len(run.training[1]) // FIRST_PART] for run in _finished(panels)]
    if finite := [top for top in tops if np.isfinite(top)]:
        axes[0, 0].set_ylim(top=max(finite))
    for axis in axes.ravel():
        clean(axis)
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("loss (nats a token)\nlines: training, dots: validation")
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return file


def _panels(collection: Collection) -> dict[str, list[Configuration]]:
    """Configurations by what they share besides the method; one panel "" where there is one method."""
    finished = [c for c in collection.configurations.values() if c.seeds]
    if len({c.run.settings["method"] for c in finished}) == 1:
        return {"": finished}
    told = [key for key in varied_settings(collection) if key in PANEL_SETTINGS]
    routed: dict[tuple, list[Configuration]] = {}
    for configuration in finished:
        if configuration.run.settings["method"] != "dense":
            routed.setdefault(_shape(configuration, told), []).append(configuration)
    dense = [c for c in finished if c.run.settings["method"] == "dense"]
    if not routed:
        return {"": dense}
    return {
        " ".join(f"{key}={value}" for key, value in shape): [
            *(c for c in dense if c.run.size == configurations[0].run.size),
            *configurations,
        ]
        for shape, configurations in routed.items()
    }


def _shape(configuration: Configuration, told: list[str]) -> tuple:
    settings = configuration.run.settings
    return tuple((key, settings[key]) for key in told if key in settings)


def _finished(panels: dict[str, list[Configuration]]) -> list[Measured]:
    return [run for panel in panels.values() for c in panel for run in c.seeds.values()]


def _looks(configurations: list[Configuration]) -> list[dict]:
    """A colour a method, lines of a method told apart by dashes; shades where there is one method."""
    methods = [c.run.settings["method"] for c in configurations]
    if len(set(methods)) == 1:
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(methods)))
        return [{"color": shade, "marker": "o"} for shade in shades]
    earlier = [methods[:i].count(method) for i, method in enumerate(methods)]
    return [
        style_of(c.run) | {"linestyle": DASHES[number % len(DASHES)]}
        for c, number in zip(configurations, earlier, strict=True)
    ]


def _draw(axis: Axes, configuration: Configuration, look: dict, label: str) -> None:
    runs = list(configuration.seeds.values())
    steps, mean = _mean([run.training for run in runs])
    width = max(len(steps) // 40, 1)
    smooth = np.convolve(mean, np.full(width, 1 / width), mode="valid")
    axis.plot(steps[width - 1 :], smooth, linewidth=1, **(look | {"marker": ""}))
    axis.plot(*_mean([run.validation for run in runs]), markersize=4, **(look | {"linestyle": ""}))
    axis.plot(
        [], [], label=label, linewidth=1, markersize=4, **look
    )  # line and marker in the legend


def _mean(curves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds at the steps that all of them have."""
    steps = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves)))
    values = [values[np.isin(at, steps)] for at, values in curves]
    return np.array(steps), np.mean(values, axis=0)
