"""Times a training step without recording, with recording between records, and with a record.

    python benchmarks/recording.py                # the small shape, on the CPU, some minutes
    python benchmarks/recording.py --shape 182m   # on a GPU

Three processes train the same model on the same ids in turns: "off" without `--record-routing`,
"between" with an interval that no step reaches, "every step" with a record, file included, of each.
What an interval of N costs follows: ``between + (every step - between) / N``. They compute the same, so
all have as many active experts; ReMoE trains first until its sparsity is at its target.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from heading import heading
from random_corpus import write_corpus
from ratios import median, ratio, ratio_lines, row
from shapes import SHAPES, megatron_sides
from training_step import NUM_BATCHES, warm_up
from turns import Side, take_turns

HERE = Path(__file__).resolve().parent
NEVER = 10**9
INTERVALS = {"off": None, "between": NEVER, "every step": 1}
PAIRS = (("between", "off"), ("every step", "off"))
SHOWN = (1000, 100, 10, 1)  # 1000 is --eval-interval of the recipes, and so the default there


def main():
    """Print the heading, a row a side, the ratios, and what each interval costs."""
    args = parse()
    shape = SHAPES[args.shape]
    print(f"{heading(args.threads)}\n\n{args.routing}, {shape}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "ids")
        write_corpus(corpus, shape.vocabulary, NUM_BATCHES * shape.tokens)
        sides = [
            Side(name, command(args, shape, corpus, name, Path(folder)), args.threads)
            for name in INTERVALS
        ]
        for side in sides:
            warm_up(side, shape.topk)
        seconds, told = take_turns(sides, args.rounds, args.steps)
        for line in report(seconds):
            print(line)
        for side in sides:
            side.close()
    losses = {name: [step["loss"] for step in steps] for name, steps in told.items()}
    if len({tuple(values) for values in losses.values()}) != 1:
        sys.exit("the sides differ in their losses: they must not")


def parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--routing", choices=("ReMoE", "TopK"), default="ReMoE")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6, help="timed in each turn of a side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def command(args, shape, corpus, name, folder):
    """The command line of one side's child."""
    flags = [*megatron_sides(shape)[args.routing], "--data-path", str(corpus)]
    if interval := INTERVALS[name]:
        flags += ["--record-routing", str(folder / name.replace(" ", "_"))]
        flags += ["--record-routing-interval", str(interval)]
    return [sys.executable, str(HERE / "megatron_side.py"), *flags]


def report(seconds):
    """Lines of what was measured."""
    yield row(["side", "ms a step"])
    yield row(["---"] * 2)
    for name, rounds in seconds.items():
        yield row([name, f"{1e3 * median(rounds):.2f}"])
    yield ""
    yield from ratio_lines(seconds, PAIRS)
    yield ""
    between, every = (ratio(seconds[first], seconds[second])[0] for first, second in PAIRS)
    for interval in SHOWN:
        slower = between + (every - between) / interval - 1
        yield f"a record every {interval} steps: {slower:+.2%}"


if __name__ == "__main__":
    main()
