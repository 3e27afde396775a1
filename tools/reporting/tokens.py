"""Sections on how many experts a token gets: the histogram, and rare against common tokens."""

import numpy as np
from matplotlib.ticker import StrMethodFormatter

from remoe.analysis import experts_per_token
from remoe.analysis.ratios import ratio
from reporting import heatmaps, numbers
from reporting.parts import (
    RECORDING,
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
from run_log.panels import legend_of_runs, plot_line, wrapped
from run_log.style import bare, from_zero

_LEAST_SHARE = 5e-4  # of the pairs in a bar that is still to be seen
_FEWEST_OCCURRENCES = 20  # of a token id whose mean is in the correlation


def histogram(runs: list[Run]) -> Section | Missing:
    """Bars over all layers, and a heat map by layer."""
    title = "Experts a token"
    shown = [run for run in runs if run.record is not None]
    if not shown:
        return Missing(title, RECORDING)
    many = len(runs) > 1
    pictures = [_bars(runs, shown), *(_by_layer(run, many) for run in shown)]
    return Section(
        title,
        "How many experts a token uses in a layer. TopK gives each the same number; ReLU routing lets "
        "it vary and holds only the mean.",
        pictures,
        notes=absent(runs, names_of(shown)),
    )


def _shares(run: Run) -> np.ndarray:
    """Percent of the tokens with 0, 1, ... E experts, ``[L, E + 1]``."""
    return 100 * ratio(run.record.experts_per_token, run.record.num_tokens)


def _most(runs: list[Run]) -> int:
    """The largest number of experts with a bar that can be seen."""
    return max(
        int(np.flatnonzero(_shares(run).max(0) > 100 * _LEAST_SHARE).max(initial=1)) for run in runs
    )


def _bars(runs: list[Run], shown: list[Run]) -> Picture:
    most = _most(shown)
    figure, (axis,) = panel(height_for(runs))
    width = 0.85 / len(shown)
    styles = styles_of(runs)
    for index, run in enumerate(shown):
        means = _shares(run).mean(0)[: most + 1]
        at = np.arange(len(means)) + (index - (len(shown) - 1) / 2) * width
        axis.bar(at, means, width, color=styles[run.name].colour, label=wrapped(run.name))
    axis.set(title="Experts a token, all layers", xlabel="active experts in a layer")
    axis.set_ylabel("% of (token, layer) pairs")
    axis.xaxis.get_major_locator().set_params(integer=True)
    bare(axis)
    legend_of_runs(axis, styles)
    means = [numbers.decimal(float(run.record.active_experts.mean()), 2) for run in shown]
    if len(runs) > 1:
        means = [f"{run.name} {mean}" for run, mean in zip(shown, means, strict=True)]
    caption = f"Mean: {'; '.join(means)}."
    return picture(figure, "experts-a-token", "Histogram of experts a token", caption)


def _by_layer(run: Run, many: bool) -> Picture:
    shares = _shares(run)[:, : _most([run]) + 1]
    figure, (axis,) = panel(1.2 + 0.32 * len(shares) if len(shares) < 12 else 5)
    columns = list(range(shares.shape[1]))
    norm = heatmaps.from_zero(100)
    image = heatmaps.draw(axis, shares, norm, columns, run.layers, numbers=True)
    axis.set(
        xlabel="active experts",
        ylabel="layer",
        title=title_of("Experts a token by layer", run, many),
    )
    heatmaps.colour_bar(figure, image, [axis], "% of the tokens")
    name = f"experts-a-token-{run.name}"
    return picture(figure, name, f"Experts a token by layer, {run.name}", f"{run.record_name}.")


def frequency(runs: list[Run]) -> Section | Missing:
    """Mean active experts against how often a token occurs."""
    title = "Rare and common tokens"
    shown = [run for run in runs if run.record is not None and run.record.token_count.any()]
    if not shown:
        return Missing(title, RECORDING)
    figure, (axis,) = panel(height_for(runs))
    rows, styles = [], styles_of(runs)
    for run in shown:
        bins = experts_per_token.mean_by_token_frequency(
            run.record.token_count, run.record.token_active
        )
        curve = bins.num_tokens / bins.num_ids, bins.active_experts.mean(-1)
        plot_line(axis, curve, run.name, styles, marker="o", markersize=4)
        rows.append([run.name, *_correlation(run)])
    axis.set(title="Experts by frequency of the token", ylabel="experts a token (mean over layers)")
    axis.set(xlabel="occurrences of the token in the recorded text", xscale="log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    from_zero(axis)
    bare(axis)
    legend_of_runs(axis, styles)
    header = ["run", "rank correlation (Spearman)", "95 % interval", "token ids in it"]
    return Section(
        title,
        "Each point is the mean over token ids that occur about equally often; rare ones stand on the "
        "left. The paper (its figure 7) finds that ReMoE gives rare tokens more experts.",
        [picture(figure, "frequency", "Experts a token against its frequency")],
        [Table(header, rows)],
        notes=[
            f"Correlation over token ids with at least {_FEWEST_OCCURRENCES} occurrences; negative: "
            "the rarer, the more experts.",
            *absent(runs, names_of(shown)),
        ],
    )


def _correlation(run: Run) -> list[str]:
    try:
        found = experts_per_token.frequency_correlation(
            run.record.token_count, run.record.token_active, _FEWEST_OCCURRENCES
        )
    except ImportError:
        return ["needs scipy", numbers.NOT_THERE, numbers.NOT_THERE]
    interval = numbers.NOT_THERE
    if np.isfinite(found.low):
        interval = f"{numbers.decimal(found.low, 2)} to {numbers.decimal(found.high, 2)}"
    return [numbers.decimal(found.value, 2), interval, numbers.count(found.num_pairs)]
