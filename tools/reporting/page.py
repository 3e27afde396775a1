"""The page: its sections in their order, and one file that holds them all."""

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reporting import (
    checkpoints,
    domains,
    load,
    neighbours,
    overview,
    passage,
    stages,
    tokens,
    training,
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
        load.unused,
        load.gates,
        tokens.histogram,
        tokens.frequency,
        partial(passage.build, tokenizer_folder=tokenizer),
        domains.build,
        checkpoints.build,
        neighbours.coactivation,
        neighbours.chunk_table,
    )
    with plt.rc_context(FONT):
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
    environment.filters["data_url"] = _data_url
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
    for part in parts:
        for picture in getattr(part, "pictures", ()):
            (folder / f"{picture.name}.png").write_bytes(picture.png)
    return folder


def _data_url(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
