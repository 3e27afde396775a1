"""A bound on the experts that one token visits, for the steps in which routing is dense."""

import torch
from torch import Tensor


def cap_active_experts(
    probs: Tensor, routing_map: Tensor, cap: int, padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the ``C`` largest gates of each token.

    ``R'(x_t)_e = R(x_t)_e * [e in topk(R(x_t), C)]``: at most ``C T`` rows reach the experts,
    whatever the density. A dropped gate gets no gradient from what comes after; the regulariser
    and the counters are to be given the gates from before, so that lambda's course is that of the
    method and dropped gates shrink.

    Args:
        probs: Gate values ``[num_tokens, num_experts]``, ``>= 0``, any floating dtype.
        routing_map: ``probs > 0``, same shape, bool.
        cap: ``C``, from 1 to ``num_experts``; an int, so nothing is read on the host.
        padding_mask: ``[num_tokens]`` bool, True = padding. Padding is capped but not counted.

    Returns:
        ``probs`` and ``routing_map`` with dropped pairs at 0 and False, and the number of dropped
        pairs, 0-dim int64. Equal gates are kept or dropped as `torch.topk` orders them. Rows with
        at most ``C`` active experts are as they were.

    Raises:
        ValueError: If ``cap`` is not between 1 and ``num_experts``.
    """
    num_experts = probs.shape[1]
    if not 1 <= cap <= num_experts:
        raise ValueError(f"cap must be between 1 and num_experts={num_experts}, got {cap}")
    with torch.no_grad():
        largest = torch.zeros_like(routing_map).scatter_(1, probs.topk(cap, dim=1).indices, True)
        dropped = routing_map & ~largest
        counted = dropped if padding_mask is None else dropped & ~padding_mask.unsqueeze(1)
    return probs.masked_fill(dropped, 0.0), routing_map & largest, counted.sum()


def cap_at_step(cap: int, num_experts: int, num_steps: int, step: int) -> int | None:
    """The cap of one step, which rises in even steps until there is none.

    ``C_i = floor(C + (E - C) * i / N)`` for ``i < N``, and none from then on.

    Args:
        cap: ``C``, the cap at step 0.
        num_experts: ``E``.
        num_steps: ``N``, the steps that are capped.
        step: ``i``, the training steps before this one.

    Returns:
        An int below ``num_experts``, or None for no cap.
    """
    if step >= num_steps:
        return None
    return cap + (num_experts - cap) * step // num_steps
