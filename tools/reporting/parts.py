"""What sections of the page are made of: pictures, tables, and what is not there."""

import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from run_log.panels import wrapped
from run_log.scalars import RunLog
from run_log.style import LineStyle, line_styles, plt

WIDTH = 5.6  # inches: letters stay readable where a phone shows a picture 370 pixels wide
_DPI = 170
_LONGEST_NAME = 120  # characters
_TITLE_WIDTH = 52  # characters over a picture of this width
FONT = {"font.size": 10, "axes.titlesize": 11, "legend.fontsize": 9, "figure.titlesize": 11}


# What adds a section: words of the page.
SCALARS = ("pretrain_gpt.py ... --tensorboard-dir RUN/tensorboard",)
RELU = (f"{SCALARS[0]} --moe-relu-routing",)
ANALYSING = ("python tools/analyze_routing.py RUN",)
RECORDING = (*ANALYSING, "pretrain_gpt.py ... --record-routing RUN/routing")


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes:
        name: Of its file, without the ending, where no other picture of the page takes it first.
        alt: What it shows, for those who do not see it.
        caption: How to read it.
        png: The file.
    """

    name: str
    alt: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each row is its name."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass
class Section:
    """A part of the page with a title.

    Attributes:
        title: Stands in the table of contents, too.
        lead: One to three sentences: what is seen, how to read it.
        pictures: In the order of the page.
        tables: Below the pictures.
        passages: Coloured text by domain, below the tables.
        scale: What the grounds of the text mean, from none up.
        notes: Small print: runs that are not in it, how it was measured.
    """

    title: str
    lead: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    passages: dict[str, list] = field(default_factory=dict)
    scale: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Its address in the page."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@dataclass(frozen=True)
class Missing:
    """A section that has no data.

    Attributes:
        title: Of the section.
        commands: Each of them would add it.
    """

    title: str
    commands: tuple[str, ...]


def panel(height: float = 3.6, rows: int = 1) -> tuple[Figure, list]:
    """A figure of one column and its axes, from the top; `height` in inches is that of one row."""
    figure, axes = plt.subplots(
        rows, 1, figsize=(WIDTH, height * rows), squeeze=False, layout="constrained"
    )
    return figure, list(axes[:, 0])


def picture(figure: Figure, name: str, alt: str, caption: str = "") -> Picture:
    """Write a figure as PNG and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    plt.close(figure)
    return Picture(file_name(name), alt, caption, buffer.getvalue())


def overlay(draw: Callable, runs: list, logs: dict[str, RunLog], name: str, alt: str) -> Picture:
    """A picture of some of the page's runs by a function of `run_log.panels`."""
    figure, (axis,) = panel(height_for(runs))
    draw(axis, logs, styles_of(runs))
    return picture(figure, name, alt)


def height_for(runs: list) -> float:
    """Height in inches of a panel with a legend of runs: a long one gets room."""
    return 3.6 + 0.14 * max(0, len(runs) - 3)


def styles_of(runs: list) -> dict[str, LineStyle]:
    """Styles of all runs of the page: the same in every picture."""
    return line_styles(names_of(runs))


def with_tag(runs: list, tag: str) -> dict[str, RunLog]:
    """Logs of the runs that have a scalar, by name."""
    return {run.name: run.log for run in runs if run.curve(tag)}


def file_name(text: str) -> str:
    """A text in letters and of a length that every file system takes."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "_" for c in text)
    return plain[:_LONGEST_NAME]


def title_of(text: str, run, many: bool) -> str:
    """The title of a picture of one run; it names the run where the page has several."""
    return wrapped(f"{run.name}: {text[0].lower()}{text[1:]}", _TITLE_WIDTH) if many else text


def absent(runs: list, shown: Collection[str]) -> list[str]:
    """A note that names the runs which are not among `shown`: a list of none or one."""
    names = [run.name for run in runs if run.name not in shown]
    return [f"Nothing recorded for: {', '.join(names)}."] if names else []


def names_of(runs: list) -> list[str]:
    """Their names in the page."""
    return [run.name for run in runs]
