"""Times one MoE layer: ReMoE, TopK, Megatron's local TopK, the blocks of Mixtral and OLMoE.

    python benchmarks/moe_layer.py     # two layers on the CPU, the 182M model's on a GPU

A step is forward and backward. ReMoE's routing is that of stage III: k of E experts are active in the
mean, a token has none to several; all sides get the same hidden states and the same router weight.
Each side is a process that waits while another has its turn. TopK and ReMoE compute their losses on
the routing; the blocks of transformers leave that to their model. Their experts are of the
implementation that is fastest here.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from heading import has_gpu, heading
from ratios import median, ratio_lines, row
from shapes import SHAPES, Shape
from turns import Side, take_turns

HERE = Path(__file__).resolve().parent
SIDES = ("ReMoE", "TopK", "local TopK", "Mixtral", "Olmoe")
PAIRS = [("ReMoE", other) for other in SIDES[1:]] + [("TopK", "Mixtral")]
LAYERS = (Shape(layers=1), Shape(layers=1, hidden=512, ffn=1024))
GPU_LAYERS = (dataclasses.replace(SHAPES["182m"], layers=1),)
TOLERANCE = 0.03  # of the mean active experts
MIB = 2**20


def main():
    """Print the heading, and for each shape a table and the ratios."""
    args = parse()
    print(heading(args.threads), flush=True)
    for shape in GPU_LAYERS if has_gpu() else LAYERS:
        measure(shape, args)


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="timed in each turn of a side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def measure(shape, args):
    """Time all sides of one shape and print them."""
    sides = [Side(name, command(name, shape), args.threads) for name in args.sides]
    for side in sides:
        side.run(5)
        check(side, shape)
    seconds, _ = take_turns(sides, args.rounds, args.steps)
    peaks = {side.name: max(step["bytes"] for step in side.run(3, memory=True)) for side in sides}
    dtype = "bf16" if shape.bf16 else "fp32"
    print(f"\n{shape.tokens} tokens, hidden {shape.hidden}, width {shape.ffn}, ", end="")
    print(f"E={shape.experts}, k={shape.topk}, {dtype}\n")
    head = ("side", "ms", "active experts", "tokens without", "most", "peak MiB", "experts by")
    print(row(head), row(["---"] * len(head)), sep="\n")
    for side in sides:
        facts = side.facts
        cells = [side.name, f"{1e3 * median(seconds[side.name]):.1f}"]
        cells += [f"{facts.get('active', shape.topk):.3f}", f"{facts.get('without', 0):.1%}"]
        cells += [facts.get("most", shape.topk), f"{peaks[side.name] / MIB:.0f}"]
        print(row([*cells, facts.get("experts", "Megatron")]))
        side.close()
    print("", *ratio_lines(seconds, PAIRS), sep="\n", flush=True)


def command(name, shape):
    """The command line of one side's child."""
    told = json.dumps({"kind": name, "shape": dataclasses.asdict(shape)})
    return [sys.executable, str(HERE / "layer_side.py"), told]


def check(side, shape):
    """See that the layer is of the size and the sparsity that is said."""
    expected, found = shape.num_layer_parameters(), side.facts["parameters"]
    assert found == expected, f"{side.name} has {found} parameters, not {expected}"
    active = side.facts.get("active", shape.topk)
    assert abs(active / shape.topk - 1) <= TOLERANCE, f"{side.name}: {active} active experts"


if __name__ == "__main__":
    main()
