"""ReLU routing: which experts a token visits, and the gate value of each (eq. 5)."""

import torch
from torch import Tensor


def relu_routing(logits: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Route every token to the experts whose logit is positive, or above a threshold.

    ``R(x_t)_e = ReLU(x_t W)_e``: no softmax, no renormalisation, no top-k. The gate value itself
    multiplies the expert's output, so routing is differentiable wherever an expert is active.

    A threshold ``t`` changes the number of active experts after training. ``t > 0`` keeps the gates
    above it as they are; ``t < 0`` gives ``ReLU(logits - t)``, since logits below 0 are no gates. Of the
    meanings that were measured these have the lowest loss (experiments/active_experts).

    Args:
        logits: Router output ``[num_tokens, num_experts]``, any floating dtype.
        threshold: ``t``; 0 is the method.

    Returns:
        ``probs`` ``[num_tokens, num_experts]``, ``>= 0``, in the dtype of ``logits``; rows need not
        sum to one. ``routing_map``, same shape, bool; a row holds 0 to ``num_experts`` true
        entries. The map is taken from ``probs`` in their final dtype, so "active" and "non-zero
        gate" are one thing for every kernel that later treats a zero gate as padding.

    Source: arXiv 2412.14711, eq. 5.
    """
    probs = torch.relu(logits - threshold if threshold < 0 else logits)
    if threshold > 0:
        probs = probs.masked_fill(logits <= threshold, 0.0)
    return probs, probs > 0
