"""How lines and pictures look: colours that colour-blind readers tell apart."""

from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's palette without its yellow, which white paper swallows.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
GREY = "#999999"


@dataclass(frozen=True)
class LineStyle:
    """Colour and dashes of a run, the same in every picture."""

    colour: str
    dashes: str


def line_styles(names: Iterable[str]) -> dict[str, LineStyle]:
    """A style for each name: colours first, other dashes when those are used up."""
    count = len(PALETTE)
    return {
        name: LineStyle(PALETTE[i % count], DASHES[i // count % len(DASHES)])
        for i, name in enumerate(names)
    }


def from_zero(axis: Axes) -> None:
    """Let the values begin at 0 and leave room above the largest, so that no marker is cut."""
    top = axis.dataLim.ymax
    axis.set_ylim(0, 1.08 * top if top > 0 else 1)


def by_layer(count: int) -> list:
    """Colours of layers, dark at the bottom of the model to light at its top."""
    return [plt.get_cmap("viridis")(0.9 * i / max(count - 1, 1)) for i in range(count)]


def over_steps(axis: Axes) -> None:
    """What every panel over training steps has: its label, a grid, digits in groups."""
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    bare(axis)


def bare(axis: Axes) -> None:
    """A light grid, no frame on the right and above."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
