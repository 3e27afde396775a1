"""Time and peak memory of a training step while routing is dense and when it is sparse, by chunks.

    python benchmarks/stages.py --experts 8 32 --chunks 1 16

One run for each pair, one after another, each in a process of its own, by the whole of
`pretrain_gpt.py`; same seed, same data. Peak memory: on the CPU what the process's resident set reaches
within a step beyond what it had when training started; on a GPU what torch's allocator reached.
"""

import argparse
import ctypes
import importlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
FLAGS = (
    "--moe-relu-routing --num-layers 4 --hidden-size 128 --ffn-hidden-size 512 --num-attention-heads 4 "
    "--moe-router-topk 1 --seq-length 256 --max-position-embeddings 256 --micro-batch-size 8 "
    "--global-batch-size 8 --lr 1e-3 --lr-decay-style constant --swiglu --normalization RMSNorm "
    "--position-embedding-type rope --disable-bias-linear --attention-dropout 0 --hidden-dropout 0 "
    "--untie-embeddings-and-output-weights --eval-iters 0 --eval-interval 100000 --log-interval 1 "
    "--num-workers 0 --mock-data --tokenizer-type NullTokenizer --vocab-size 4096 "
    "--moe-relu-l1-reg-coeff-init 1e-3 --moe-token-dispatcher-type alltoall"
).split()
DENSE, SPARSE = slice(1, 4), slice(-5, None)  # steps; the first one warms up
MIB = 2**20
HEADER = """\
| E | chunks | stage | sparsity | s a step | MiB | of sparse, no chunks | loss off by |
|---|---|---|---|---|---|---|---|"""


class PeakMemory:
    """Bytes that were in use at most since the last `restart`."""

    def __init__(self):
        import torch

        self._cuda = torch.cuda if torch.version.cuda and Path("/dev/nvidia0").exists() else None

    def restart(self):
        """Count from now on."""
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
            return
        ctypes.CDLL(None).malloc_trim(0)  # give back what is free, else it counts as resident
        Path("/proc/self/clear_refs").write_text("5")

    def read(self):
        """The peak in bytes."""
        if self._cuda:
            return self._cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


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
        sparsity = get_moe_metrics_tracker().source.stats.sparsity.item()
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
    parser.add_argument(
        "--chunks", type=int, nargs="+", default=[1, 16], help="the first: to compare with"
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        return train(args.child)
    print(HEADER, flush=True)
    for experts in args.experts:
        runs = {n: run(experts, n, args.steps) for n in args.chunks}
        plain = runs[args.chunks[0]]
        sparse_bytes = statistics.median(step[3] for step in plain[SPARSE])
        for chunks, steps in runs.items():
            off = max(abs(a[0] / b[0] - 1) for a, b in zip(steps, plain, strict=True))
            for name, part in (("dense", steps[DENSE]), ("sparse", steps[SPARSE])):
                sparsity, seconds, peak = map(statistics.median, list(zip(*part, strict=True))[1:])
                figures = (
                    f"{sparsity:.3f} | {seconds:.2f} | {peak / MIB:.0f} | {peak / sparse_bytes:.2f}"
                )
                print(f"| {experts} | {chunks} | {name} | {figures} | {off:.0e} |", flush=True)


def run(experts, chunks, steps):
    """Figures of each step of one run."""
    flags = [*FLAGS, "--num-experts", str(experts), "--train-iters", str(steps)]
    flags += ["--moe-relu-token-chunks", str(chunks)]
    command = [sys.executable, __file__, "--child", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"E={experts}, {chunks} chunks ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
