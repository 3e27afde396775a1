"""Hidden states and a router's weight whose ReLU routing has k of E experts active in the mean."""

import torch
from torch import Tensor


def routed_tokens(
    num_tokens: int, hidden: int, num_experts: int, topk: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random both, but that the first feature is 1 and gives each logit the same bias.

    ``logits = x W^T - threshold`` with the threshold that `num_tokens * topk` logits exceed. Apart from
    that they are independent: a token has 0 to several active experts. TopK's choice is the same
    with and without the bias.

    Args:
        num_tokens: T.
        hidden: Features of a token.
        num_experts: E.
        topk: k.
        seed: Of the random numbers.

    Returns:
        Hidden states ``[num_tokens, hidden]`` and weight ``[num_experts, hidden]``, fp32 on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(num_tokens, hidden, generator=generator)
    weight = torch.randn(num_experts, hidden, generator=generator) / hidden**0.5
    tokens[:, 0], weight[:, 0] = 1.0, 0.0
    logits = (tokens @ weight.T).flatten()
    num_inactive = logits.numel() - num_tokens * topk
    if num_inactive:  # halfway between two logits, so that no rounding moves one across
        lower, upper = logits.sort().values[num_inactive - 1 : num_inactive + 1]
        weight[:, 0] = -(lower + upper) / 2
    return tokens, weight
