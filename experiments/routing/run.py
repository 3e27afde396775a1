"""How routing differs between methods, over seeds: `python experiments/routing/run.py`.

Reads what `tools/analyze_routing.py` wrote of the runs of experiments/methods, has it written where it
is missing, and makes results.json, routing.png and the tables on the screen.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "scripts")]

import matplotlib.pyplot as plt
import numpy as np

from run_log.methods import METHOD_NAMES
from run_log.style import BLUE, ORANGE, bare
from sweeping.looks import LOOKS

# Expert choice chooses among the tokens of a batch: its maps are those of the batch, not of the text.
COMPARED = (
    *("relu", "relu-l1", "topk", "topk-warmup", "topk-unbalanced", "topk-bias"),
    *("sparsemixer", "hash"),
)


def main() -> None:
    """Read, average over seeds, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/nano_eight")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=HERE)
    args = parser.parse_args()
    results = {}
    for method in COMPARED:
        runs = [args.runs / f"{method}_E8_k1_G1_s{seed}" for seed in args.seeds]
        results[method] = [measure(read_analysis(run)) for run in runs]
    print(table(results))
    print(frequency_table(results["relu"]))
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, args.output / "routing.png")


def read_analysis(run: Path) -> dict:
    """A run's analysis.json, made first if it is not there."""
    path = run / "analysis/analysis.json"
    if not path.is_file():
        command = [sys.executable, ROOT / "tools/analyze_routing.py", run]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"run.py: {run}: cannot be analysed: train it first, see experiments/methods")
    return json.loads(path.read_text())


def measure(analysis: dict) -> dict:
    """What the tables and the picture show of one run, at its last checkpoint."""
    last, flips = analysis["checkpoints"][-1], analysis["flips"]
    balance, special = last["load_balance"], last["specialisation"]
    frequency = last["token_frequency"]
    return {
        "step": last["step"],
        "loss": last["loss"],
        "active_experts_by_layer": last["active_experts_by_layer"],
        "without_expert": float(np.mean(last["tokens_without_expert_by_layer"])),
        "flip_rate": flips[-1]["flip_rate"],
        "flip_steps": [flips[-1]["from_step"], flips[-1]["to_step"]],
        "load_cv": float(np.mean(balance["coefficient_of_variation"])),
        "max_over_mean": float(np.mean(balance["max_over_mean"])),
        "domain_information": float(np.mean(special["domain_information"])),
        "token_information": float(np.mean(special["token_information"])),
        "domain_correlation": last["divergence"]["correlation"],
        "frequency_correlation": frequency["correlation"],
        "frequency_correlation_by_layer": frequency["correlation_by_layer"],
        "frequency_bins": frequency["bins"],
    }


def table(results: dict[str, list[dict]]) -> str:
    """Means over seeds with standard errors, as Markdown."""
    columns = {
        "flip rate": "flip_rate",
        "load CV": "load_cv",
        "max/mean load": "max_over_mean",
        "pairs without expert": "without_expert",
        "domain says, bits": "domain_information",
        "token says, bits": "token_information",
    }
    lines = [f"| method | {' | '.join(columns)} | rho of domains, each seed |"]
    lines.append("|---|" + "---:|" * (len(columns) + 1))
    for method, runs in results.items():
        cells = [mean_and_error([run[name] for run in runs]) for name in columns.values()]
        rho = ", ".join(number(run["domain_correlation"]["value"]) for run in runs)
        lines.append(f"| {METHOD_NAMES[method]} | {' | '.join(cells)} | {rho} |")
    return "\n".join(lines)


def frequency_table(runs: list[dict]) -> str:
    """Rank correlation of a token id's frequency with its experts, by seed and layer, as Markdown."""
    num_layers = len(runs[0]["frequency_correlation_by_layer"])
    layers = " | ".join(f"layer {layer + 1}" for layer in range(num_layers))
    lines = [f"\n| seed | all layers | {layers} |", "|---|" + "---:|" * (num_layers + 1)]
    for seed, run in enumerate(runs, start=1):
        values = [run["frequency_correlation"], *run["frequency_correlation_by_layer"]]
        cells = (f"{v['value']:.2f} [{v['low']:.2f}, {v['high']:.2f}]" for v in values)
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Two digits; a dash for what is not defined."""
    return "-" if value is None else f"{value:.2f}"


def mean_and_error(values: list[float]) -> str:
    """Mean ± standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {error:.3f}"


def draw(results: dict[str, list[dict]], output: Path) -> None:
    """Flip rate against balance, and experts a token against frequency."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for method, runs in results.items():
        colour, marker = LOOKS[method]
        x, y = ([run[name] for run in runs] for name in ("load_cv", "flip_rate"))
        left.errorbar(
            np.mean(x),
            np.mean(y),
            xerr=np.std(x, ddof=1) / np.sqrt(len(x)),
            yerr=np.std(y, ddof=1) / np.sqrt(len(y)),
            fmt=marker,
            color=colour,
        )
        left.annotate(
            METHOD_NAMES[method],
            (np.mean(x), np.mean(y)),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=8,
        )
    first, last = next(iter(results.values()))[0]["flip_steps"]
    left.set_title(f"Stability and balance, steps {first} to {last}")
    left.set_xlabel("load imbalance: coefficient of variation (0: even)")
    left.set_ylabel("flip rate (share of pairs that changed)")
    left.set_ylim(bottom=-0.005)
    left.margins(x=0.2)
    draw_frequency(right, results["relu"])
    for axis in (left, right):
        bare(axis)
    figure.savefig(output, dpi=120)


def draw_frequency(axis, runs: list[dict]) -> None:
    """Mean experts of a token in the first and in the later layers, by how often its id occurs."""
    for part, label, colour in (
        (slice(0, 1), "layer 1", BLUE),
        (slice(1, None), "mean of later layers", ORANGE),
    ):
        for run in runs:
            bins = run["frequency_bins"]
            middle = np.sqrt(np.array(bins["least"]) * np.array(bins["most"]))
            active = np.array(bins["active_experts"])[:, part].mean(axis=1)
            axis.plot(middle, active, "o-", color=colour, markersize=3, linewidth=1, label=label)
            label = None  # once, not for each seed
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_title("ReMoE: experts of a token by its frequency, a line a seed")
    axis.set_xlabel("occurrences of the token id in 32,768 tokens")
    axis.set_ylabel("active experts a token")
    axis.legend(frameon=False)


if __name__ == "__main__":
    main()
