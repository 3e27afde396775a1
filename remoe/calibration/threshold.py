"""The threshold on a layer's logits above which a given number of experts a token is active."""

import math

import torch
from torch import Tensor


def threshold_for_active_experts(logits: Tensor, active: float) -> float:
    """Find the threshold that a mean of ``active`` logits a token exceed.

    With ``n = round(active * num_tokens)`` it lies half-way between the n-th and the (n+1)-th largest
    of all logits. Logits that are equal there go over or stay under together, whichever is nearer.

    Args:
        logits: Router output on text ``[num_tokens, num_experts]``, any floating dtype.
        active: Mean of active experts a token to reach, from 0 to ``num_experts``. At 0 the threshold
            is the largest logit, so that none exceeds it; at ``num_experts`` just below the smallest.

    Returns:
        The threshold ``t``: ``(logits > t).sum(1).mean()`` is nearest to ``active``.

    Raises:
        ValueError: If there is no logit, or ``active`` is out of range.
    """
    num_tokens, num_experts = logits.shape
    if not num_tokens:
        raise ValueError("no tokens, so no threshold: give text")
    if not 0 <= active <= num_experts:
        raise ValueError(f"{active:g} active experts: give a number from 0 to {num_experts}")
    values, counts = logits.float().flatten().unique(return_counts=True)  # ascending
    # above[i]: logits from values[i] on; the last entry, 0, is above all of them
    above = torch.cat([counts.flip(0).cumsum(0).flip(0), counts.new_zeros(1)])
    cut = int((above - active * num_tokens).abs().argmin())
    if cut == 0:
        return float(torch.nextafter(values[0], values.new_tensor(-math.inf)))
    below = values[cut - 1]
    if cut == len(values):
        return float(below)
    middle = below + (values[cut] - below) / 2
    return float(middle if middle < values[cut] else below)  # neighbours have no middle
