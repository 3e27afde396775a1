"""The L1 penalty on the gate values that makes routing sparse and even (eq. 9 to 11)."""

import torch
from torch import Tensor


@torch.no_grad()
def expert_load(tokens_per_expert: Tensor, topk: int, num_tokens: int | Tensor) -> Tensor:
    """Relative load of each expert; 1 is a fair share of the target.

    ``f_e = E / (k T) * sum_t [R(x_t)_e > 0]``. Counts absolute tokens, so a denser layer has a
    larger mean load and is penalised more. No gradient flows through it.

    Args:
        tokens_per_expert: Active tokens of each expert ``[num_experts]``, integer or float.
        topk: Target number of active experts a token, ``k``.
        num_tokens: ``T``, the tokens that were counted; an int, or a 0-dim tensor (no host read).

    Returns:
        ``f`` ``[num_experts]``, fp32, detached. All zeros if no token was counted.

    Source: arXiv 2412.14711, eq. 11.
    """
    num_experts = tokens_per_expert.numel()
    num_tokens = torch.as_tensor(num_tokens, device=tokens_per_expert.device)
    fair_share = topk * num_tokens.clamp(min=1).to(torch.float32) / num_experts
    return tokens_per_expert.to(torch.float32) / fair_share


def l1_loss(
    probs: Tensor, expert_load: Tensor | None = None, num_tokens: int | Tensor | None = None
) -> Tensor:
    """L1 penalty of one layer before its coefficient, a mean over tokens.

    ``1/T * sum_{t,e} f_e R(x_t)_e`` with the load (eq. 10), ``1/T * sum_{t,e} R(x_t)_e`` without
    (eq. 9). The paper's ``1/L`` is left out: each layer's loss is attached whole, as the published
    code does, so that published coefficients and settling steps compare.

    Args:
        probs: Gate values ``[num_tokens, num_experts]``, ``>= 0``. Summed in fp32.
        expert_load: ``f`` ``[num_experts]``; treated as a constant.
        num_tokens: ``T`` to divide by where the rows are a part of a larger whole (ranks that share
            a sequence, rows that are padding); default ``probs.shape[0]``.

    Returns:
        Scalar, fp32. The gradient with respect to an active gate is ``f_e / T``: one constant per
        expert.

    Source: arXiv 2412.14711, eq. 9 and 10.
    """
    if num_tokens is None:
        num_tokens = probs.shape[0]
    return l1_loss_of_sums(probs.sum(dim=0, dtype=torch.float32), num_tokens, expert_load)


def l1_loss_of_sums(
    probs_per_expert: Tensor, num_tokens: int | Tensor, expert_load: Tensor | None = None
) -> Tensor:
    """`l1_loss` where each expert's gate values are summed already.

    Args:
        probs_per_expert: ``sum_t R(x_t)_e`` ``[num_experts]``, fp32.
        num_tokens: ``T``; an int, or a 0-dim tensor (no host read).
        expert_load: As for `l1_loss`.

    Returns:
        Scalar, fp32.

    Source: arXiv 2412.14711, eq. 9 and 10.
    """
    if expert_load is not None:
        probs_per_expert = probs_per_expert * expert_load.detach()
    num_tokens = torch.as_tensor(num_tokens, device=probs_per_expert.device).clamp(min=1)
    return probs_per_expert.sum() / num_tokens
