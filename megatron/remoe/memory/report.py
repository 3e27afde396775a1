"""Prints what a run will need in memory before its model is built, and what to do if it is too much."""

import os
import resource
from argparse import Namespace

import psutil
import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron.remoe import cpu
from megatron.remoe.memory.advice import least, mends
from megatron.remoe.memory.estimate import Estimate, estimate, peak
from megatron.remoe.memory.shape import Shape, shape_of

GIB = 2**30
# The rest is for what no estimate has: uneven loads, fragments, buffers of collectives.
USABLE = 0.9


def report_memory(args: Namespace, transformer: TransformerConfig) -> None:
    """Print the estimate of a run that starts dense on rank 0, with advice if it does not fit.

    Args:
        args: Validated.
        transformer: The model's configuration.
    """
    if args.rank != 0:
        return
    try:
        shape = shape_of(args, transformer)
    except ValueError as error:
        print(f"> ReMoE: memory: {error}", flush=True)
        return
    memory = rank_memory()
    lines = [*table(shape, memory), *advice(shape, memory)]
    print("\n".join(f"> ReMoE: {line}" for line in lines), flush=True)


def table(shape: Shape, memory: float) -> list[str]:
    """Lines that say what is needed while routing is dense and when it is sparse.

    Args:
        shape: Of the run.
        memory: Bytes that a rank has.
    """
    dense, sparse = (estimate(shape, active) for active in (shape.dense_active, shape.topk))
    stage = f", pipeline stage {dense.stage + 1} of {shape.pp}" if shape.pp > 1 else ""
    rows = [("active experts a token", shape.dense_active, shape.topk)]
    rows += zip(_NAMES, _gib(dense), _gib(sparse), strict=True)
    lines = [f"{name:34}{first:>13.2f}{second:>14.2f}" for name, first, second in rows]
    title = f"memory of the fullest rank{stage}, estimated in GiB; it has {memory / GIB:.2f}"
    names = (
        ("dense stage", "sparse stage") if shape.topk_warm_up is None else ("warm-up", "after it")
    )
    return [title, f"{'':34}{names[0]:>13}{names[1]:>14}", *lines]


def advice(shape: Shape, memory: float) -> list[str]:
    """Lines that say what makes the run fit; none if it does already.

    Args:
        shape: Of the run.
        memory: Bytes that a rank has.
    """
    needed, limit = peak(shape).total, USABLE * memory
    if needed <= limit:
        return []
    found = mends(shape, limit)
    if not found:
        options, total = least(shape)
        return [
            f"{needed / GIB:.2f} GiB will not fit, and no option alone changes that: with "
            f"{options} {total / GIB:.2f} GiB are left. Spread the model over more ranks."
        ]
    lines = [f"{mend.flags}: {mend.total / GIB:.2f} GiB; {mend.remark}" for mend in found]
    share = f"over {USABLE:.0%} of {memory / GIB:.2f} GiB"
    return [f"{needed / GIB:.2f} GiB may not fit ({share}). Add one of:", *_indented(lines)]


def rank_memory() -> float:
    """Bytes that this rank may use in all: of its GPU, or its share of what the machine has free."""
    if not cpu.is_needed():
        device = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return torch.cuda.get_device_properties(device).total_memory
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = psutil.virtual_memory().available / ranks + psutil.Process().memory_info().rss
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    return free if allowed == resource.RLIM_INFINITY else min(free, allowed)


_NAMES = (
    "weights, gradients, optimizer",
    "activations outside of experts",
    "activations of experts",
    "logits, or one layer's backward",
    "together",
)


def _gib(found: Estimate) -> list[float]:
    state = found.weights + found.gradients + found.optimizer
    parts = [state, found.activations, found.experts, found.working, found.total]
    return [part / GIB for part in parts]


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
