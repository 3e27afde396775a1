"""Sections on what goes together: experts of one token, and tokens beside each other."""

import numpy as np

from remoe.analysis import chunks
from remoe.analysis.coactivation import coactivation as conditional
from reporting import heatmaps, numbers
from reporting.parts import (
    ANALYSING,
    Missing,
    Picture,
    Section,
    Table,
    absent,
    names_of,
    panel,
    picture,
    title_of,
)
from reporting.runs import Run


def coactivation(runs: list[Run]) -> Section | Missing:
    """A heat map expert x expert for some layers of each run."""
    title = "Experts that go together"
    with_maps = [run for run in runs if run.maps is not None]
    if not with_maps:
        return Missing(title, ANALYSING)
    shown = [run for run in with_maps if (run.maps.routing_map().sum(-1) > 1).any()]
    alone = [run.name for run in with_maps if run not in shown]
    notes = [f"No token has two experts in a layer: {', '.join(alone)}."] if alone else []
    return Section(
        title,
        "Each row is an expert: of the tokens that use it, the share that use each other expert, too.",
        [_picture(run, len(runs) > 1) for run in shown],
        notes=[*notes, *absent(runs, names_of(with_maps))],
    )


def _picture(run: Run, many: bool) -> Picture:
    together = 100 * conditional(run.maps.routing_map())
    together[:, *np.diag_indices(together.shape[-1])] = np.nan  # is 100 % of itself
    layers = heatmaps.chosen_layers(len(together))
    figure, axes = panel(2.4, len(layers))
    experts = list(range(1, together.shape[-1] + 1))
    norm = heatmaps.from_zero(float(np.nanmax(together[layers], initial=0)))
    for axis, layer in zip(axes, layers, strict=True):
        few = heatmaps.LOW_LABELS
        image = heatmaps.draw(axis, together[layer], norm, experts, experts, most_y=few)
        axis.set(title=f"layer {run.maps.meta['moe_layers'][layer]}", ylabel="expert")
    axes[-1].set_xlabel("other expert")
    figure.suptitle(title_of("Co-activation", run, many))
    heatmaps.colour_bar(figure, image, axes, "% that use the other expert, too")
    name = f"coactivation-{run.name}"
    return picture(figure, name, f"Co-activation of experts, {run.name}", "× no value.")


def chunk_table(runs: list[Run]) -> Section | Missing:
    """Sparsity of chunks of neighbouring tokens."""
    title = "Sparsity of neighbouring tokens"
    shown = [run for run in runs if run.maps is not None]
    if not shown:
        return Missing(title, ANALYSING)
    rows = [[run.name, *_cells(run)] for run in shown]
    sizes = [numbers.count(size) for size in chunks.SIZES]
    header = ["run", *(f"{size} token{'s' if size != '1' else ''}" for size in sizes)]
    return Section(
        title,
        "The share of experts that none of so many neighbouring tokens uses: what a device can leave "
        "unread when it computes them together. In brackets: if neighbours were drawn at random.",
        tables=[Table(header, rows)],
        notes=absent(runs, names_of(shown)),
    )


def _cells(run: Run) -> list[str]:
    routing_map = run.maps.routing_map()
    cells = []
    for size in chunks.SIZES:
        found = chunks.chunk_sparsity(routing_map, run.maps.sequence_length, size).mean()
        alone = chunks.independent_sparsity(routing_map, size).mean()
        random = f" ({numbers.percent(alone)})" if size > 1 else ""
        cells.append(f"{numbers.percent(found)}{random}")
    return cells
