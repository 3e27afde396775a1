"""How methods and settings look in figures: names, colours, markers, axes."""

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from run_log.methods import METHOD_NAMES
from sweeping.runs import Run

# Colour (Okabe and Ito's and Tol's, told apart by colour-blind readers), marker.
LOOKS = {
    "dense": ("#666666", "s"),
    "topk": ("#D55E00", "o"),
    "topk-unbalanced": ("#CC79A7", "v"),
    "topk-warmup": ("#E69F00", "^"),
    "topk-bias": ("#882255", "<"),
    "expert-choice": ("#009E73", "D"),
    "hash": ("#999933", "X"),
    "sparsemixer": ("#332288", "P"),
    "relu": ("#0072B2", "o"),
    "relu-l1": ("#56B4E9", ">"),
}
AXES = {
    "E": "experts E",
    "G": "granularity G",
    "k": "experts a token k",
    "lambda_0": r"$\lambda_0$, the coefficient at the first step",
    "alpha": r"$\alpha$, the factor a step",
}
LOSS = "validation loss (nats a token)"


def label_of(run: Run, told: list[str]) -> str:
    """A configuration in words: its method, and those of its settings in `told`."""
    words = [METHOD_NAMES[run.settings["method"]]]
    if run.settings.get("expansion", "1") != "1":
        words.append(f"×{run.settings['expansion']}")
    for key in told:
        if key not in ("method", "expansion") and key in run.settings:
            words.append(f"{key.removeprefix('--')}={run.settings[key]}")
    return " ".join(words)


def style_of(run: Run) -> dict:
    """Colour and marker of a method."""
    colour, marker = LOOKS[run.settings["method"]]
    return {"color": colour, "marker": marker}


def clean(axis: Axes) -> None:
    """Grid behind the data, no box."""
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def scale_x(axis: Axes, key: str, values: list[float]) -> None:
    """A scale for the values of a setting, with a tick at each."""
    axis.set_xlabel(AXES[key])
    if key == "alpha":
        axis.xaxis.set_major_locator(FixedLocator(values))
        return
    axis.set_xscale("log", base=10 if key == "lambda_0" else 2)
    axis.xaxis.set_major_locator(FixedLocator(values))
    axis.xaxis.set_minor_locator(NullLocator())
    if key != "lambda_0":
        axis.set_xticks(values, [f"{value:g}" for value in values])
