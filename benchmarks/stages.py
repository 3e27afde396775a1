"""Time and peak memory of a training step in each stage of routing, with and without its bound.

    python benchmarks/stages.py --experts 8 32 128

One run for each pair of experts and options (`BOUNDS`), one after another, each by the whole of
`pretrain_gpt.py` in a process of its own; same seed, same data. Peak memory: on the CPU what the
resident set reaches within a step beyond what it had before; on a GPU what torch's allocator reached.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from peak_memory import PeakMemory

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    "--num-layers 4 --hidden-size 128 --ffn-hidden-size 512 --num-attention-heads 4 "
    "--moe-router-topk 1 --seq-length 256 --max-position-embeddings 256 --micro-batch-size 8 "
    "--global-batch-size 8 --lr 1e-3 --lr-decay-style constant --swiglu --normalization RMSNorm "
    "--position-embedding-type rope --disable-bias-linear --attention-dropout 0 --hidden-dropout 0 "
    "--untie-embeddings-and-output-weights --eval-iters 0 --eval-interval 100000 --log-interval 1 "
    "--num-workers 0 --moe-token-dispatcher-type alltoall"
).split()
MOCK_DATA = "--mock-data --tokenizer-type NullTokenizer --vocab-size 4096".split()
RELU = "--moe-relu-routing --moe-relu-l1-reg-coeff-init 1e-3".split()
BOUNDS = {
    "none": "",
    "chunks": "--moe-relu-chunk-above 1.5",
    "cap": "--moe-relu-max-active-experts 4 --moe-relu-cap-steps 40",
    "warm-up": "--moe-relu-l1-reg-coeff-warmup-multiplier 1.5",
}
WARM_UP = 1  # steps
SETTLED = 1.1  # active experts a token: k is 1
MIB = 2**20
HEADER = """\
| E | bound | stage | steps | sparsity | s a step | MiB | of sparse, unbounded | loss off by |
|---|---|---|---|---|---|---|---|---|"""


def train(flags):
    """Run the command in this process; print [loss, sparsity, seconds, bytes] of each step as JSON."""
    sys.path.insert(0, str(ROOT))
    pretrain_gpt = importlib.import_module("pretrain_gpt")  # before Megatron: it may hide CUDA
    from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker
    from megatron.training import training

    memory, steps, train_step = PeakMemory(), [], training.train_step

    def measured(*args, **kwargs):
        memory.restart()
        before, start = memory.read(), time.perf_counter()
        result = train_step(*args, **kwargs)
        loss = result[0]["lm loss"].item()  # waits for the device
        seconds, peak = time.perf_counter() - start, memory.read()
        source = getattr(get_moe_metrics_tracker(), "source", None)
        sparsity = source.stats.sparsity.item() if source else None  # not of a TopK model
        steps.append([loss, sparsity, seconds, peak - before])
        return result

    with (
        mock.patch.object(sys, "argv", ["pretrain_gpt.py", *flags]),
        mock.patch.object(training, "train_step", measured),
    ):
        pretrain_gpt.main()
    print(json.dumps(steps))


def main():
    """Run each pair, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--bounds", nargs="*", choices=BOUNDS, default=list(BOUNDS)[1:])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return train(args.child)
    print(HEADER, flush=True)
    for experts in args.experts:
        runs = {
            bound: run([*RELU, *BOUNDS[bound].split(), *MOCK_DATA], experts, args.steps)
            for bound in ("none", *args.bounds)
        }
        plain = runs["none"]
        sparse = plain[stages(plain, experts)["sparse"]]
        if not sparse:
            sys.exit(f"E={experts} is not sparse after {args.steps} steps: give more --steps")
        sparse_bytes = max(step[3] for step in sparse)
        for bound, steps in runs.items():
            for stage, part in stages(steps, experts).items():
                figures = figures_of(steps[part], plain[part], sparse_bytes)
                print(f"| {experts} | {bound} | {stage} | {figures} |", flush=True)


def stages(steps, experts):
    """Where each stage lies: dense, over 0.4 of the experts active; sparse, from near k of them on."""
    active = [experts * (1 - step[1]) for step in steps]
    is_dense = [number > 0.4 * experts for number in active]
    end_of_dense = is_dense.index(False) if False in is_dense else len(steps)
    settled = [i for i, number in enumerate(active) if number <= SETTLED] or [len(steps)]
    return {
        "dense": slice(WARM_UP, end_of_dense),
        "sparsifying": slice(end_of_dense, settled[0]),
        "sparse": slice(settled[0], len(steps)),
    }


def figures_of(steps, plain, sparse_bytes):
    """The rest of a line: a stage of a run beside the same steps of the run without a bound."""
    if not steps:
        return "0 | | | | |"
    sparsity, seconds = (
        statistics.median(column) for column in list(zip(*steps, strict=True))[1:3]
    )
    most = max(step[3] for step in steps)
    off = max(abs(a[0] / b[0] - 1) for a, b in zip(steps, plain, strict=True))
    return (
        f"{len(steps)} | {sparsity:.3f} | {seconds:.2f} | {most / MIB:.0f} | "
        f"{most / sparse_bytes:.2f} | {off:.0e}"
    )


def run(flags, experts, steps):
    """Figures of each step of one run with these flags of its router and its data."""
    sizes = ["--num-experts", str(experts), "--train-iters", str(steps)]
    command = [sys.executable, __file__, "--child", *FLAGS, *flags, *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"E={experts}, {' '.join(flags)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
