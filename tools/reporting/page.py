"""The page: its sections in their order, and one file that holds them all."""

import base64
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reporting import (
    checkpoints,
    domains,
    gates,
    load,
    neighbours,
    overview,
    passage,
    stages,
    tokens,
    training,
    unused,
)
from reporting.parts import FONT, Missing, Picture, Section
from reporting.runs import Run
from run_log.style import plt

_TEMPLATE = "page.html.j2"


def sections(runs: list[Run], tokenizer: Path | None = None) -> list[Section | Missing]:
    """Every section in the order of the page, or what is missing for it.

    Args:
        runs: At least one.
        tokenizer: Folder of the one that the tokens are of; None for that of each run's arguments.
    """
    builders: tuple[Callable[[list[Run]], Section | Missing], ...] = (
        overview.build,
        training.loss,
        stages.build,
        training.active_experts,
        load.load,
        load.balance,
        unused.build,
        gates.build,
        tokens.histogram,
        tokens.frequency,
        partial(passage.build, tokenizer_folder=tokenizer),
        domains.build,
        checkpoints.build,
        neighbours.coactivation,
        neighbours.chunk_table,
    )
    with plt.rc_context(FONT), warnings.catch_warnings():
        # A letter of a run's name that the font lacks is a box in each picture: said once.
        warnings.filterwarnings("once", "Glyph .* missing from font")
        return [build(runs) for build in builders]


def render(parts: list[Section | Missing], runs: list[Run], title: str) -> str:
    """The page as text: pictures are in it, and it refers to nothing outside."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_url": _data_url, "breakable": _breakable}
    missing: dict[tuple[str, ...], list[str]] = {}
    for part in parts:
        if isinstance(part, Missing):
            missing.setdefault(part.commands, []).append(part.title)
    return environment.get_template(_TEMPLATE).render(
        title=title,
        runs=runs,
        sections=[part for part in parts if isinstance(part, Section)],
        missing=missing,
    )


def write(parts: list[Section | Missing], runs: list[Run], title: str, output: Path) -> Path:
    """Write the page, and its pictures into a folder beside it.

    Returns:
        The folder of the pictures.
    """
    folder = output.with_name(f"{output.stem}_pictures")
    folder.mkdir(parents=True, exist_ok=True)
    output.write_text(render(parts, runs, title), encoding="utf-8")
    for name, picture in _named([p for part in parts for p in getattr(part, "pictures", ())]):
        (folder / f"{name}.png").write_bytes(picture.png)
    return folder


def _named(pictures: list[Picture]) -> Iterator[tuple[str, Picture]]:
    """Pictures by names of their own, also where letter case makes no difference: a, A-2, a-3."""
    used: set[str] = set()
    for picture in pictures:
        name, number = picture.name, 1
        while name.lower() in used:
            number += 1
            name = f"{picture.name}-{number}"
        used.add(name.lower())
        yield name, picture


def _breakable(text: str) -> Markup:
    """A text whose long names may go on in the next line after an underscore, hyphen or slash."""
    return Markup(re.sub("([_/-])", r"\1<wbr>", str(escape(text))))


def _data_url(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
