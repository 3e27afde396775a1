"""Sections on how many experts a token gets: the histogram, and rare against common tokens."""

import numpy as np

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
    names_of,
    panel,
    picture,
    title_of,
)
from reporting.runs import Run
from run_log.panels import wrapped
from run_log.style import bare, line_styles

_LEAST_SHARE = 5e-4  # of the pairs in a bar that is still to be seen
_FEWEST_OCCURRENCES = 20  # of a token id whose mean is in the correlation


def histogram(runs: list[Run]) -> Section | Missing:
    """Bars over all layers, and a heat map by layer."""
    title = "Experts a token"
    shown = [run for run in runs if run.record is not None]
    if not shown:
        return Missing(title, RECORDING)
    many = len(runs) > 1
    pictures = [_bars(shown), *(_by_layer(run, many) for run in shown)]
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


def _bars(runs: list[Run]) -> Picture:
    most = _most(runs)
    figure, (axis,) = panel(3.6 + 0.12 * max(0, len(runs) - 3))
    width = 0.85 / len(runs)
    for index, (name, style) in enumerate(line_styles(names_of(runs)).items()):
        means = _shares(runs[index]).mean(0)[: most + 1]
        at = np.arange(len(means)) + (index - (len(runs) - 1) / 2) * width
        axis.bar(at, means, width, color=style.colour, label=wrapped(name))
    axis.set(title="Experts a token, all layers", xlabel="active experts in a layer")
    axis.set_ylabel("% of (token, layer) pairs")
    axis.xaxis.get_major_locator().set_params(integer=True)
    bare(axis)
    if len(runs) > 1:
        axis.legend(frameon=False)
    means = "; ".join(
        f"{run.name} {numbers.decimal(float(np.mean(run.record.active_experts)), 2)}"
        for run in runs
    )
    return picture(figure, "experts-a-token", "Histogram of experts a token", f"Mean: {means}.")


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
    figure, (axis,) = panel()
    rows = []
    for run, style in zip(shown, line_styles(names_of(shown)).values(), strict=True):
        bins = experts_per_token.mean_by_token_frequency(
            run.record.token_count, run.record.token_active
        )
        axis.plot(
            bins.num_tokens / bins.num_ids,
            bins.active_experts.mean(-1),
            marker="o",
            color=style.colour,
            linestyle=style.dashes,
            label=wrapped(run.name),
        )
        rows.append([run.name, *_correlation(run)])
    axis.set(title="Experts by frequency of the token", ylabel="experts a token (mean over layers)")
    axis.set(xlabel="occurrences of the token in the recorded text", xscale="log")
    axis.set_ylim(bottom=0)
    bare(axis)
    if len(runs) > 1:
        axis.legend(frameon=False)
    header = ["run", "rank correlation (Spearman)", "95 % interval", "token ids in it"]
    return Section(
        title,
        "Each point is the mean over token ids that occur about equally often; rare ones stand on the "
        "left. The paper (its figure 7) finds that ReMoE gives rare tokens more experts.",
        [picture(figure, "frequency", "Experts a token against its frequency", "")],
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
    interval = f"{numbers.decimal(found.low, 2)} to {numbers.decimal(found.high, 2)}"
    return [numbers.decimal(found.value, 2), interval, numbers.count(found.num_pairs)]
