"""Times a whole training step: ReMoE in stage III, TopK, dense, and what others train them with.

    python benchmarks/training_step.py                # the small shape, on the CPU, some minutes
    python benchmarks/training_step.py --shape 182m   # on a GPU

A step is forward, backward, clipping to 1.0, AdamW and zeroing gradients. Each side is a process that
lives through the whole run and waits while another has its turn. ReMoE trains first until its sparsity
is at its target.

ReMoE, TopK and dense train by `pretrain_gpt.py`, experts grouped; "local TopK" by the same with
Megatron's own layers (`--transformer-impl local`, `SequentialMLP`), its own choice of Adam and malloc
as it is, "local TopK, our Adam and memory" with those of this project; Mixtral and Llama by transformers
and a plain torch loop, with the fastest experts and AdamW that run here. Mixtral computes its auxiliary
loss, as TopK does. All train on the same ids; Mixtral's and Llama's are ready in memory, Megatron's
sides take theirs from its data loader.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from heading import device_name, heading
from megatron_side import AS_RELEASED
from random_corpus import write_corpus
from ratios import median, ratio_lines, row
from shapes import AUX_LOSS_COEFF, SHAPES, megatron_sides
from turns import Side, take_turns

HERE = Path(__file__).resolve().parent
TUNED = "local TopK, our Adam and memory"
SIDES = ("ReMoE", "TopK", "local TopK", TUNED, "Mixtral", "dense", "Llama")
PAIRS = (
    ("ReMoE", "TopK"),
    ("ReMoE", "local TopK"),
    ("ReMoE", TUNED),
    ("ReMoE", "Mixtral"),
    ("TopK", "Mixtral"),
    ("dense", "Llama"),
)
SETTLED, WINDOW, MOST_STEPS = 0.03, 30, 900  # relative error of the mean active experts of 30 steps
NUM_BATCHES = 128  # of ids, which are taken again and again
MIB = 2**20


def main():
    """Print the heading, a row a side, and the ratios."""
    args = parse()
    shape = SHAPES[args.shape]
    try:
        shape = shape.with_tokens(args.tokens) if args.tokens else shape
    except ValueError as error:
        sys.exit(f"training_step.py: {error}")
    print(f"{heading(args.threads)}\n\n{shape}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "ids")
        write_corpus(corpus, shape.vocabulary, NUM_BATCHES * shape.tokens)
        compare(shape, corpus, args)


def compare(shape, corpus, args):
    """Time all sides and print them."""
    sides = [Side(name, command(name, shape, corpus), args.threads) for name in args.sides]
    for side in sides:
        warm_up(side, shape.topk)
    check_sizes(sides, shape)
    seconds, told = take_turns(sides, args.rounds, args.steps)
    peaks = {side.name: max(step["bytes"] for step in side.run(3, memory=True)) for side in sides}
    for line in table(sides, shape, seconds, told, peaks):
        print(line)
    print()
    for line in ratio_lines(seconds, PAIRS):
        print(line)
    for side in sides:
        side.close()


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--tokens", type=int, help="of a step; default: the shape's")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6, help="timed in each turn of a side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def command(name, shape, corpus):
    """The command line of one side's child, which trains on these ids."""
    if name not in ("Mixtral", "Llama"):
        flags = [*megatron_sides(shape)["local TopK" if name == TUNED else name]]
        flags += ["--data-path", str(corpus)]
        if name == "local TopK":
            flags.insert(0, AS_RELEASED)
        return [sys.executable, str(HERE / "megatron_side.py"), *flags]
    settings = shape.hugging_face()
    if name == "Mixtral":
        settings |= shape.hugging_face_experts()
        settings |= {"output_router_logits": True, "router_aux_loss_coef": AUX_LOSS_COEFF}
    told = {"kind": name, "settings": settings, "sequences": shape.sequences, "bf16": shape.bf16}
    told["corpus"] = str(corpus)
    return [sys.executable, str(HERE / "hugging_face_side.py"), json.dumps(told)]


def warm_up(side, topk):
    """Run until all is compiled and mapped, and of ReMoE until it is in stage III."""
    steps = side.run(10)
    if "active" not in steps[0]:
        return
    while abs(mean_active(steps[-WINDOW:]) / topk - 1) > SETTLED or len(steps) < 3 * WINDOW:
        if len(steps) > MOST_STEPS:
            sys.exit(f"{mean_active(steps[-WINDOW:]):.2f} active experts after {len(steps)} steps")
        steps += side.run(10)
    print(f"{side.name} has {mean_active(steps[-WINDOW:]):.3f} active experts a token", end=" ")
    print(f"after {len(steps)} steps\n", flush=True)


def mean_active(steps):
    """Active experts a token."""
    return statistics.mean(step["active"] for step in steps)


def check_sizes(sides, shape):
    """See that all compare what they say."""
    for side in sides:
        expected = shape.num_parameters(dense=side.name in ("dense", "Llama"))
        found = side.facts["parameters"]
        assert found == expected, f"{side.name} has {found} parameters, not {expected}"
        threads = {other.facts["threads"] for other in sides}
        assert len(threads) == 1, f"sides differ in threads: {threads}"


def table(sides, shape, seconds, told, peaks):
    """Rows of Markdown."""
    sys.path.insert(0, str(HERE.parent))
    from megatron.remoe.throughput.peak_flops import known_peak

    peak_tflops = known_peak(device_name(), "bf16") if shape.bf16 else None
    head = ["side", "ms a step", "tokens/s", "active experts", "peak MiB", "parameters"]
    head += ["MFU"] * bool(peak_tflops) + ["with"]
    yield from (row(head), row(["---"] * len(head)))
    for side in sides:
        name, dense = side.name, side.name in ("dense", "Llama")
        step = median(seconds[name])
        active = mean_active(told[name]) if "active" in told[name][0] else shape.topk
        cells = [name, f"{1e3 * step:.1f}", f"{shape.tokens / step:.0f}"]
        cells += ["-" if dense else f"{active:.3f}", f"{peaks[name] / MIB:.0f}"]
        cells += [f"{side.facts['parameters'] / 1e6:.2f} M"]
        if peak_tflops:
            flops = shape.flops(1 if dense else active, dense)
            cells.append(f"{flops / step / peak_tflops / 1e12:.1%}")
        used = (f"{key} {side.facts[key]}" for key in ("experts", "AdamW") if key in side.facts)
        yield row([*cells, ", ".join(used) or "Megatron"])


if __name__ == "__main__":
    main()
