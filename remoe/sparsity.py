"""Sparsity of the routing, from integer counters summed before they are divided (eq. 8)."""

import torch
from torch import Tensor


def target_sparsity(topk: int, num_experts: int) -> float:
    """Sparsity at which a token visits ``topk`` experts on average: ``1 - k / E``.

    Args:
        topk: ``k``, target number of active experts a token.
        num_experts: ``E``.

    Raises:
        ValueError: If not ``1 <= topk <= num_experts``.

    Source: arXiv 2412.14711, section 3.2.
    """
    if not 1 <= topk <= num_experts:
        raise ValueError(f"topk must be between 1 and num_experts={num_experts}, got {topk}")
    return 1.0 - topk / num_experts


def sparsity(num_active: Tensor, num_slots: Tensor) -> Tensor:
    """Fraction of (token, expert) pairs that are inactive: ``S = 1 - num_active / num_slots``.

    Sum both counters over layers, micro-batches and ranks first: a mean of ratios would weigh a
    short micro-batch like a full one, and ranks would disagree.

    Args:
        num_active: Active pairs, integer (or fp64, exact below 2^53), any shape.
        num_slots: All pairs, same shape.

    Returns:
        fp64, same shape. NaN where ``num_slots`` is 0: there is no sparsity of nothing.

    Source: arXiv 2412.14711, eq. 8.
    """
    return 1.0 - num_active.to(torch.float64) / num_slots.to(torch.float64)


@torch.no_grad()
def routing_counts(routing_map: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """Count what the controller, the regulariser and the log need, in one integer vector.

    Args:
        routing_map: ``[num_tokens, num_experts]`` bool.
        padding_mask: ``[num_tokens]`` bool, True = padding; such rows count for nothing.

    Returns:
        ``[num_experts + 2]`` int64: tokens per expert, then the number of tokens, then the number
        of tokens with no expert. Vectors of several micro-batches, layers or ranks add up.
    """
    if padding_mask is None:
        num_tokens = torch.full((1,), routing_map.shape[0], device=routing_map.device)
        without_expert = (~routing_map.any(dim=1)).sum(dim=0, keepdim=True)
    else:
        valid = ~padding_mask
        num_tokens = valid.sum(dim=0, keepdim=True)
        routing_map = routing_map & valid.unsqueeze(1)
        without_expert = (valid & ~routing_map.any(dim=1)).sum(dim=0, keepdim=True)
    return torch.cat([routing_map.sum(dim=0), num_tokens, without_expert])
