"""Expert choice: each expert takes its best tokens, instead of each token its best experts."""

import torch
from torch import Tensor


def expert_capacity(num_tokens: int, topk: int, num_experts: int) -> int:
    """Tokens that each expert takes: ``T k / E``, rounded to the nearest, from 1 to ``T``.

    Args:
        num_tokens: ``T``, all tokens that the experts choose among.
        topk: ``k``, the mean number of experts a token; the paper's capacity factor.
        num_experts: ``E``.

    Source: arXiv 2202.09368, section 3.2, which says nothing of a share that is not whole.
    """
    nearest = (2 * num_tokens * topk + num_experts) // (2 * num_experts)
    return min(max(nearest, 1), num_tokens)


def choose_tokens(scores: Tensor, topk: int, padding_mask: Tensor | None = None) -> Tensor:
    """Which tokens each expert takes.

        I = TopK(S^T, n k / e),   S = softmax(X W)

    Every expert has the same load; a token may have none, some or all experts. The choice for a token
    depends on all tokens that are passed, also on those that come after it in the text.

    Args:
        scores: ``S``, ``[num_tokens, num_experts]``: the softmax over experts of each token's logits.
        topk: ``k``, the mean number of experts a token.
        padding_mask: ``[num_tokens]`` bool, True = padding, which no expert takes; its places are
            left empty where there are not enough other tokens.

    Returns:
        Routing map ``[num_tokens, num_experts]`` bool. The gates are ``scores`` where it is true.

    Source: arXiv 2202.09368, section 3.2 (without the optional bound on experts a token, 3.3).
    """
    num_tokens, num_experts = scores.shape
    if padding_mask is not None:
        scores = scores.masked_fill(padding_mask.unsqueeze(-1), -1.0)
    chosen = scores.topk(expert_capacity(num_tokens, topk, num_experts), dim=0).indices
    routing_map = torch.zeros_like(scores, dtype=torch.bool).scatter(0, chosen, True)
    return routing_map if padding_mask is None else routing_map & ~padding_mask.unsqueeze(-1)
