"""How evenly tokens are spread over a layer's experts, and over the ranks that hold them."""

import numpy as np

from remoe.analysis.ratios import ratio

SHARE = 1 / 64  # of a layer's tokens; an expert with less counts as hardly used


def coefficient_of_variation(tokens_per_expert: np.ndarray) -> np.ndarray:
    """Standard deviation over experts by their mean; 0 is even, ``sqrt(E - 1)`` all on one expert.

    Args:
        tokens_per_expert: ``[..., E]`` counts.

    Returns:
        ``[...]``; NaN where nothing was routed.
    """
    return ratio(tokens_per_expert.std(-1), tokens_per_expert.mean(-1))


def max_over_mean(tokens_per_expert: np.ndarray) -> np.ndarray:
    """The fullest expert's tokens by the mean over experts: 1 is even, E all on one expert.

    With one expert (or a group of them) a rank, a step waits this much longer than it need.

    Args:
        tokens_per_expert: ``[..., E]`` counts.

    Returns:
        ``[...]``; NaN where nothing was routed.
    """
    return ratio(tokens_per_expert.max(-1), tokens_per_expert.mean(-1))


def fraction_below(
    tokens_per_expert: np.ndarray, num_tokens: int, share: float = SHARE
) -> np.ndarray:
    """Fraction of experts that fewer than `share` of the layer's tokens visit.

    Args:
        tokens_per_expert: ``[..., E]`` counts.
        num_tokens: Tokens that entered the layer, whether an expert took them or not.
        share: Of `num_tokens`.

    Returns:
        ``[...]``; NaN without tokens.
    """
    if num_tokens == 0:
        return np.full(tokens_per_expert.shape[:-1], np.nan)
    return (tokens_per_expert < share * num_tokens).mean(-1)


def over_ranks(tokens_per_expert: np.ndarray, num_ranks: int) -> np.ndarray:
    """Rows that each rank of an expert-parallel group computes.

    Rank r holds the experts ``r E / num_ranks`` to ``(r + 1) E / num_ranks - 1``, as in Megatron.

    Args:
        tokens_per_expert: ``[..., E]`` counts.
        num_ranks: Ranks; divides E.

    Returns:
        ``[..., num_ranks]`` counts.

    Raises:
        ValueError: If the experts cannot be spread evenly.
    """
    num_experts = tokens_per_expert.shape[-1]
    if num_ranks < 1 or num_experts % num_ranks:
        raise ValueError(f"num_ranks {num_ranks}: give a divisor of the {num_experts} experts")
    return tokens_per_expert.reshape(*tokens_per_expert.shape[:-1], num_ranks, -1).sum(-1)
