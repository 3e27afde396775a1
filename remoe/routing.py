"""ReLU routing: which experts a token visits, and the gate value of each (eq. 5)."""

import torch
from torch import Tensor


def relu_routing(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Route every token to the experts whose logit is positive.

    ``R(x_t)_e = ReLU(x_t W)_e``: no softmax, no renormalisation, no top-k. The gate value itself
    multiplies the expert's output, so routing is differentiable wherever an expert is active.

    Args:
        logits: Router output ``[num_tokens, num_experts]``, any floating dtype.

    Returns:
        ``probs`` ``[num_tokens, num_experts]``, ``>= 0``, in the dtype of ``logits``; rows need not
        sum to one. ``routing_map``, same shape, bool; a row holds 0 to ``num_experts`` true
        entries. The map is taken from ``probs`` in their final dtype, so "active" and "non-zero
        gate" are one thing for every kernel that later treats a zero gate as padding.

    Source: arXiv 2412.14711, eq. 5.
    """
    probs = torch.relu(logits)
    return probs, probs > 0
