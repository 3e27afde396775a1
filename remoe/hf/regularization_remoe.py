"""The L1 loss of the gates, which makes routing sparse and even (eq. 9 to 11)."""

import torch
from torch import Tensor


def routing_loss(
    probs: Tensor,
    routing_map: Tensor,
    topk: int,
    load_balancing: bool,
    padding_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The L1 loss of one layer and micro-batch before its coefficient, and what was counted.

    ``1/T * sum_{t,e} f_e R(x_t)_e`` with ``f_e = E / (k T) * sum_t [R(x_t)_e > 0]``, a constant
    (eq. 10, 11), or with ``f_e = 1`` (eq. 9). The paper's ``1/L`` is left out, as in the published
    code: the losses of the layers are added, so that published coefficients compare.

    Args:
        probs: Gate values ``[num_tokens, num_experts]``.
        routing_map: Where they are positive, bool.
        topk: ``k``.
        load_balancing: Eq. 10 if true, eq. 9 if false.
        padding_mask: ``[num_tokens]`` bool, True = padding: such rows count for nothing.

    Returns:
        Scalar fp32; tokens per expert, then the number of tokens, ``[num_experts + 1]`` int64.
    """
    if padding_mask is None:
        num_tokens = torch.full((1,), len(probs), device=probs.device)
    else:
        is_token = ~padding_mask
        num_tokens = is_token.sum(dim=0, keepdim=True)
        probs, routing_map = probs * is_token[:, None], routing_map & is_token[:, None]
    counts = torch.cat((routing_map.sum(dim=0), num_tokens))
    num_tokens = num_tokens.clamp(min=1)
    probs_per_expert = probs.sum(dim=0, dtype=torch.float32)
    if load_balancing:
        fair_share = topk * num_tokens.float() / probs.shape[1]
        probs_per_expert = probs_per_expert * (counts[:-1].float() / fair_share)
    return probs_per_expert.sum() / num_tokens[0], counts
