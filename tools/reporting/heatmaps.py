"""Heat maps: an even scale from 0 up, and a scale of ratios that is white at 1."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from reporting.numbers import decimal

UP, AROUND_ONE = "viridis", "PuOr_r"  # both are told apart without red or green; the latter centred
_LEAST_RATIO, _LARGEST_RATIO = 0.25, 4.0
_RATIO_TICKS = {0.25: "¼ or less", 0.5: "½", 1: "1", 2: "2", 4: "4 or more"}
_MOST_LABELS = 16
LOW_LABELS = 8  # of rows in a panel of two inches
_MOST_CELLS_WITH_NUMBERS = 12  # in a row


def chosen_layers(count: int, most: int = 4) -> list[int]:
    """Indices of at most `most` layers, evenly, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def from_zero(largest: float) -> Normalize:
    """A scale from 0 to the largest value."""
    return Normalize(0, largest if np.isfinite(largest) and largest > 0 else 1)


def ratios() -> LogNorm:
    """A scale from a quarter to four times, the same distance for half and for double."""
    return LogNorm(_LEAST_RATIO, _LARGEST_RATIO)


def draw(
    axis: Axes,
    values: np.ndarray,
    norm: Normalize,
    x: list,
    y: list,
    numbers: bool = False,
    most_y: int = _MOST_LABELS,
):
    """A heat map; returns what a colour bar is made from.

    Args:
        axis: To draw in.
        values: ``[rows, columns]``; NaN is left white with a cross.
        norm: From `from_zero` or `ratios`.
        x: A label for each column.
        y: A label for each row.
        numbers: Whether to write each value into its cell, where the cells are wide enough.
        most_y: Labels of rows, at most.
    """
    is_ratio = isinstance(norm, LogNorm)
    shown = np.clip(values, _LEAST_RATIO, _LARGEST_RATIO) if is_ratio else values
    image = axis.imshow(
        shown,
        norm=norm,
        cmap=AROUND_ONE if is_ratio else UP,
        aspect="auto",
        interpolation="nearest",
    )
    _label(axis.xaxis, x)
    _label(axis.yaxis, y, most_y)
    axis.tick_params(length=0)
    for row, column in np.argwhere(np.isnan(values)):
        axis.text(column, row, "×", ha="center", va="center", color="#777777")
    if numbers and values.shape[1] <= _MOST_CELLS_WITH_NUMBERS:
        _write_numbers(axis, values, image)
    return image


def colour_bar(figure: Figure, image, axes: list[Axes], label: str) -> None:
    """The scale of a heat map, at the right of `axes`."""
    bar = figure.colorbar(image, ax=axes, label=label, pad=0.02, aspect=20 * len(axes))
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_locator(FixedLocator(list(_RATIO_TICKS)))
        bar.ax.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: _RATIO_TICKS.get(value, ""))
        )
        bar.ax.minorticks_off()


def _label(axis, names: list, most: int = _MOST_LABELS) -> None:
    """All names where they are few, else every so many."""
    step = -(-len(names) // most)
    axis.set_ticks(range(0, len(names), step), [str(name) for name in names[::step]])


def over_steps(axis: Axes, values: np.ndarray, norm: Normalize, steps: list[int]):
    """Experts (rows from 1) over recorded steps (columns); returns what a colour bar is made from."""
    columns, experts = list(range(len(steps))), list(range(1, len(values) + 1))
    image = draw(axis, values, norm, columns, experts, most_y=LOW_LABELS)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    last = len(steps) - 1
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: f"{steps[int(at)]:,}" if 0 <= at <= last else "")
    )
    return image


def _write_numbers(axis: Axes, values: np.ndarray, image) -> None:
    small = np.nanmax(values, initial=0) < 10
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            colour = "white" if dark else "black"
            text = decimal(float(value), 2 if small else 0 if value >= 10 else 1)
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
