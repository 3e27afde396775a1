"""What to say when memory ran out."""

import traceback
from argparse import Namespace
from dataclasses import replace

import torch
from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron.remoe.memory.advice import mends
from megatron.remoe.memory.estimate import estimate
from megatron.remoe.memory.report import GIB, rank_memory
from megatron.remoe.memory.shape import Shape, shape_of, starts_dense
from remoe.baselines import topk_at_step

# Of errors that are RuntimeErrors: of torch's allocator for the CPU, CUDA itself, cuBLAS, NCCL.
MARKS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Failed to CUDA calloc",
)

# Of what failed, whatever its estimate: an option must need no more than this.
LESS = 0.75


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in MARKS)


def out_of_memory_message(
    error: BaseException, args: Namespace, transformer: TransformerConfig
) -> str:
    """Say where memory ran out, what was expected, and what helps.

    Args:
        error: One that `is_out_of_memory`. Lets go of the tensors that its frames hold.
        args: Validated.
        transformer: The model's configuration.
    """
    traceback.clear_frames(error.__traceback__)
    iteration = getattr(args, "curr_iteration", None)
    where = "before training" if iteration is None else f"in iteration {iteration + 1}"
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    lines = [f"out of memory on rank {args.rank} {where}: {reason}"]
    if starts_dense(args):
        try:
            shape = shape_of(args, transformer)
            lines += what_helps(shape, *active_now(args, shape), rank_memory())
        except ValueError as no_estimate:
            lines.append(str(no_estimate))
    return "\n  ".join(lines)


def what_helps(shape: Shape, active: float, moment: str, memory: float) -> list[str]:
    """Lines with the estimate for a moment, and the options that need a quarter less.

    Args:
        shape: Of the run.
        active: Experts a token.
        moment: When, in words.
        memory: Bytes that a rank has.
    """
    if shape.topk_warm_up is not None:
        shape = replace(shape, topk_warm_up=active)  # once it is over no option has to bound it
    expected = estimate(shape, active).total
    lines = [
        f"with {active:.4g} active experts a token, {moment}: estimated {expected / GIB:.2f} GiB of "
        f"{memory / GIB:.2f} GiB"
    ]
    found = mends(shape, LESS * min(memory, expected))
    if not found:
        return [*lines, "no option alone helps: spread the model over more ranks"]
    return [
        *lines,
        "Add one of:",
        *(f"  {mend.flags} ({mend.total / GIB:.2f} GiB; {mend.remark})" for mend in found),
    ]


def active_now(args: Namespace, shape: Shape) -> tuple[float, str]:
    """Experts a token, and when that is; reads no device.

    Args:
        args: Validated.
        shape: Of the run.
    """
    if shape.topk_warm_up is not None:
        step, moment = getattr(args, "curr_iteration", None), "in this step"
        if step is None:
            step, moment = getattr(args, "iteration", 0), "in the first step"
        steps = args.moe_topk_warmup_steps
        return topk_at_step(shape.topk, shape.topk_warm_up, steps, step), moment
    tracked = getattr(get_moe_metrics_tracker(), "source", None)
    measured = getattr(tracked, "mean_active_experts", None)
    if measured is None:
        return shape.dense_active, "as when training starts"
    return measured, "when last logged"
