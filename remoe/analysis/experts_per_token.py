"""How many experts tokens use: by layer, by domain, and by how often the token occurs."""

from dataclasses import dataclass

import numpy as np

from remoe.analysis.rank_correlation import RankCorrelation, rank_correlation
from remoe.analysis.ratios import ratio


def histogram(routing_map: np.ndarray) -> np.ndarray:
    """Number of tokens with 0, 1, ... E active experts.

    Args:
        routing_map: ``[L, T, E]`` bool.

    Returns:
        ``[L, E + 1]`` int64.
    """
    num_layers, _, num_experts = routing_map.shape
    counts = np.zeros((num_layers, num_experts + 1), np.int64)
    for layer, active in enumerate(routing_map.sum(-1)):
        counts[layer] = np.bincount(active, minlength=num_experts + 1)
    return counts


def by_layer(tokens_per_expert: np.ndarray, num_tokens: int) -> np.ndarray:
    """Mean active experts a token of each layer.

    Args:
        tokens_per_expert: ``[L, E]`` counts.
        num_tokens: Tokens that entered each layer.

    Returns:
        ``[L]``; NaN without tokens.
    """
    return ratio(tokens_per_expert.sum(-1), num_tokens)


def by_domain(domain_tokens_per_expert: np.ndarray, domain_tokens: np.ndarray) -> np.ndarray:
    """Mean active experts a token of each domain and layer.

    Args:
        domain_tokens_per_expert: ``[D, L, E]`` counts.
        domain_tokens: ``[D]`` tokens.

    Returns:
        ``[D, L]``; NaN for a domain without tokens.
    """
    return ratio(domain_tokens_per_expert.sum(-1), domain_tokens[:, None])


@dataclass(frozen=True)
class FrequencyBins:
    """Active experts of tokens by how often their id occurs.

    Attributes:
        least: ``[B]`` int64: smallest count of an id in the bin.
        most: ``[B]`` int64: largest.
        num_ids: ``[B]`` int64: token ids in the bin.
        num_tokens: ``[B]`` int64: their occurrences.
        active_experts: ``[B, L]`` mean over these occurrences.
    """

    least: np.ndarray
    most: np.ndarray
    num_ids: np.ndarray
    num_tokens: np.ndarray
    active_experts: np.ndarray


def mean_by_token_frequency(
    token_count: np.ndarray, token_active: np.ndarray, num_bins: int = 12
) -> FrequencyBins:
    """Mean active experts of rare and of common tokens (Fig. 7 of arXiv 2412.14711).

    Bins are of equal width in the logarithm of the count; empty ones are left out.

    Args:
        token_count: ``[V]`` occurrences of each token id.
        token_active: ``[V, L]`` active experts summed over them.
        num_bins: At most.

    Raises:
        ValueError: If `num_bins` is not positive.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins {num_bins}: give 1 or more")
    seen = token_count > 0
    count, active = token_count[seen], token_active[seen]
    top = np.log2(count.max()) if len(count) else 0.0
    # A single width of 0 where each id occurs once: all of them are in the first bin.
    position = np.log2(count) / top if top else np.zeros(len(count))
    index = np.minimum((position * num_bins).astype(int), num_bins - 1)
    groups = [index == i for i in np.unique(index)]
    num_tokens = np.array([count[g].sum() for g in groups], np.int64)
    sums = np.array([active[g].sum(0) for g in groups]).reshape(len(groups), active.shape[1])
    return FrequencyBins(
        np.array([count[g].min() for g in groups], np.int64),
        np.array([count[g].max() for g in groups], np.int64),
        np.array([g.sum() for g in groups], np.int64),
        num_tokens,
        ratio(sums, num_tokens[:, None]),
    )


def frequency_correlation(token_ids: np.ndarray, num_active: np.ndarray) -> RankCorrelation:
    """Rank correlation of how often a token occurs with how many experts it uses, over occurrences.

    Negative where rare tokens use more experts. Every occurrence is a pair, the occurrences of one id
    are a group of the interval. (Means by id must not be ranked instead: most are of few occurrences,
    and where most tokens have no expert the means of rare ids are mostly 0, which alone gives a positive
    rho: 0.4 in a layer whose choices were shuffled.)

    Args:
        token_ids: ``[T]`` ids; their counts here are the frequencies.
        num_active: ``[T]`` active experts of each.

    Raises:
        ImportError: Without scipy.
    """
    counts = np.bincount(token_ids, minlength=1)
    return rank_correlation(counts[token_ids], num_active, token_ids)
