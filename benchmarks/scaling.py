"""Times a ReMoE layer against tokens, and against the number of experts at the same active compute.

    python benchmarks/scaling.py     # also draws benchmarks/scaling.png

Forward and backward at k = 1 active expert a token, as in moe_layer.py; TopK beside it. All shapes take
turns in one process. Printed are the line that fits ReMoE's times best over tokens, its largest
residual, and the slope of the line over experts: the time that more experts cost.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from heading import heading  # noqa: E402
from layer_side import step  # noqa: E402
from megatron_layers import device, join_world, make_layer  # noqa: E402
from ratios import row  # noqa: E402
from routed_tokens import routed_tokens  # noqa: E402
from shapes import SHAPES, Shape  # noqa: E402

KINDS = ("ReMoE", "TopK")


def main():
    """Measure both series, print and draw them."""
    args = parse()
    torch.set_num_threads(args.threads)
    join_world()
    base = Shape(layers=1) if device() == "cpu" else replace(SHAPES["182m"], layers=1)
    print(heading(args.threads), flush=True)
    fixed = min(args.experts)
    by_tokens = [replace(base, experts=fixed).with_tokens(tokens) for tokens in args.tokens]
    by_experts = [replace(base, experts=e).with_tokens(args.at_tokens) for e in args.experts]
    series = {
        "tokens": (args.tokens, times(by_tokens, args.rounds)),
        "experts": (args.experts, times(by_experts, args.rounds)),
    }
    for name, (values, seconds) in series.items():
        print_series(name, values, seconds)
    draw(series, fixed, args.at_tokens, args.output)
    torch.distributed.destroy_process_group()


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--at-tokens", type=int, default=8192, help="for the series over experts")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=HERE / "scaling.png")
    return parser.parse_args()


def times(shapes, rounds):
    """Median seconds of a step by kind, in the order of the shapes."""
    cases = [(kind, *case(kind, shape)) for shape in shapes for kind in KINDS]
    seconds = [[] for _ in cases]
    for number in range(rounds + 2):
        for (_, layer, hidden_states), found in zip(cases, seconds, strict=True):
            begin = time.perf_counter()
            step(layer, hidden_states)
            if number >= 2:  # to warm up
                found.append(time.perf_counter() - begin)
    medians = {kind: [] for kind in KINDS}
    for (kind, *_), found in zip(cases, seconds, strict=True):
        medians[kind].append(statistics.median(found))
    return medians


def case(kind, shape):
    """A layer and hidden states of which each token has k active experts in the mean."""
    tokens, weight = routed_tokens(shape.tokens, shape.hidden, shape.experts, shape.topk)
    hidden_states = tokens.view(shape.length, shape.sequences, -1).to(device())
    dtype = torch.bfloat16 if shape.bf16 else torch.float32
    return make_layer(kind, shape, weight), hidden_states.to(dtype)


def fit(values, seconds):
    """Intercept, slope and largest residual of a line by least squares of relative errors."""
    values, seconds = np.asarray(values, float), np.asarray(seconds, float)
    slope, intercept = np.polyfit(values, seconds, 1, w=1 / seconds)
    return intercept, slope, np.abs((intercept + slope * values) / seconds - 1).max()


def print_series(name, values, seconds):
    """A table and the line through ReMoE's times."""
    print(f"\n{row([name, *values])}\n{row(['---'] * (len(values) + 1))}")
    for kind, found in seconds.items():
        print(row([f"{kind}, ms", *(f"{1e3 * s:.1f}" for s in found)]))
    intercept, slope, residual = fit(values, seconds["ReMoE"])
    growth = slope * (values[-1] - values[0]) / (intercept + slope * values[0])
    print(f"\nReMoE: {1e3 * intercept:.2f} ms + {1e6 * slope:.3f} us x {name}; ", end="")
    print(f"largest residual {residual:.1%}; from {values[0]} to {values[-1]}: {growth:+.1%}")


def draw(series, num_experts, num_tokens, path):
    """Both series beside each other, in a file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    titles = {"tokens": f"E = {num_experts}, k = 1"}
    titles["experts"] = f"{num_tokens} tokens, k = 1"
    for axis, (name, (values, seconds)) in zip(axes, series.items(), strict=True):
        for kind, marker in zip(KINDS, "os", strict=True):
            axis.plot(values, [1e3 * s for s in seconds[kind]], marker=marker, label=kind)
        axis.set(xscale="log", xlabel=name, ylabel="ms, forward and backward", title=titles[name])
        axis.set_xticks(values, [str(value) for value in values])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
