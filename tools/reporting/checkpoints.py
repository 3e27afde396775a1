"""The section on stability: what changes in routing from checkpoint to checkpoint."""

from dataclasses import dataclass

import numpy as np

from remoe.analysis import stability
from reporting import numbers
from reporting.parts import (
    ANALYSING,
    Missing,
    Picture,
    Section,
    Table,
    absent,
    height_for,
    names_of,
    panel,
    picture,
    styles_of,
    title_of,
)
from reporting.runs import Run
from run_log.panels import legend_of_runs, plot_line
from run_log.scalars import RunLogError
from run_log.style import by_layer, from_zero, over_steps


@dataclass(frozen=True)
class Changes:
    """Of one run: flips from each checkpoint to the next, and saturation of all.

    Attributes:
        steps: Of the checkpoints.
        flip_rates: One less than there are checkpoints.
        flip_counts: Likewise.
        saturation: ``[checkpoints, L]``.
    """

    steps: list[int]
    flip_rates: list[float]
    flip_counts: list[float]
    saturation: np.ndarray


def build(runs: list[Run]) -> Section | Missing:
    """Flip rate and saturation over checkpoints."""
    title = "Stability over checkpoints"
    shown = [run for run in runs if len(run.map_files) > 1]
    if not shown:
        return Missing(f"{title} (two or more)", ANALYSING)
    changes = {run.name: _changes(run) for run in shown}
    many = len(runs) > 1
    pictures = [_flips(runs, changes)]
    pictures += [_saturation(run, changes[run.name], many) for run in shown]
    header = ["run, from checkpoint to checkpoint", "flip rate", "flip count a token and layer"]
    return Section(
        title,
        "On the same calibration text at each checkpoint. The flip rate is the share of (token, expert) "
        "decisions that changed since the checkpoint before; saturation is the share of the last "
        "checkpoint's active pairs that were active already.",
        pictures,
        [Table(header, [row for name, found in changes.items() for row in _rows(name, found)])],
        notes=[
            "Flip rates of runs compare where their checkpoints are equally far apart.",
            *absent(runs, names_of(shown)),
        ],
    )


def _changes(run: Run) -> Changes:
    steps = sorted(run.map_files)
    last_maps = run.maps
    last = last_maps.routing_map()
    rates, counts, shares, earlier = [], [], [], None
    for step in steps:
        maps = run.maps_at(step)
        if not np.array_equal(maps.token_ids, last_maps.token_ids):
            raise RunLogError(
                f"{run.map_files[step]}: its calibration text is another than that of step {steps[-1]}; "
                "delete it and call tools/analyze_routing.py again"
            )
        now = maps.routing_map()
        if now.shape != last.shape:
            raise RunLogError(
                f"{run.map_files[step]}: of a model with other layers or experts than that of step "
                f"{steps[-1]}; delete it"
            )
        if earlier is not None:
            rates.append(stability.flip_rate(now, earlier))
            counts.append(stability.flip_count(now, earlier))
        shares.append(stability.saturation(now, last))
        earlier = now
    return Changes(steps, rates, counts, np.stack(shares))


def _rows(name: str, found: Changes) -> list[list[str]]:
    pairs = zip(found.steps[:-1], found.steps[1:], found.flip_rates, found.flip_counts, strict=True)
    return [
        [
            f"{name}, {numbers.count(start)} to {numbers.count(end)}",
            numbers.percent(rate, 2),
            numbers.decimal(flips, 3),
        ]
        for start, end, rate, flips in pairs
    ]


def _flips(runs: list[Run], changes: dict[str, Changes]) -> Picture:
    figure, (axis,) = panel(height_for(runs))
    styles = styles_of(runs)
    for name, found in changes.items():
        curve = found.steps[1:], 100 * np.array(found.flip_rates)
        plot_line(axis, curve, name, styles, marker="o")
    axis.set(title="Flip rate since the checkpoint before", ylabel="% of (token, expert) decisions")
    from_zero(axis)
    over_steps(axis)
    legend_of_runs(axis, styles)
    return picture(figure, "flip-rate", "Flip rate over checkpoints")


def _saturation(run: Run, found: Changes, many: bool) -> Picture:
    figure, (axis,) = panel()
    for layer, colour in enumerate(by_layer(found.saturation.shape[1])):
        values = 100 * found.saturation[:, layer]
        label = f"layer {run.maps.meta['moe_layers'][layer]}"
        axis.plot(found.steps, values, marker="o", color=colour, label=label)
    axis.set(title=title_of("Saturation by layer", run, many), ylim=(0, 105))
    axis.set_ylabel("% of the last active pairs")
    over_steps(axis)
    if found.saturation.shape[1] <= 12:
        axis.legend(frameon=False, ncols=2, loc="lower right")
    return picture(figure, f"saturation-{run.name}", f"Saturation by layer, {run.name}")
