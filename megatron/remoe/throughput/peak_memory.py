"""The most memory that any rank held."""

import resource

import torch

from megatron.remoe import cpu


def peak_memory_gib() -> float:
    """GiB of the rank that held most; a collective over all ranks.

    On a GPU what tensors took since `restart_peak`, without the allocator's cache; on the CPU the
    largest resident set of the process so far.
    """
    if cpu.is_needed():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    else:
        peak = torch.cuda.max_memory_allocated()
    peak = torch.tensor(peak, dtype=torch.float64, device=torch.cuda.current_device())
    torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
    return peak.item() / 2**30


def restart_peak() -> None:
    """Let the next peak count from here; so does Megatron's `mem-max-allocated-bytes` then.

    The CPU's cannot: it stays that of the process.
    """
    torch.cuda.reset_peak_memory_stats()
