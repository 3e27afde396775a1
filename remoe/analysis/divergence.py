"""How far domains are apart, in their tokens and in their experts, and whether the two go together."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from remoe.analysis.rank_correlation import scipy_stats
from remoe.analysis.ratios import ratio

MOST_PERMUTATIONS = 10_000


def jensen_shannon(weights: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of each pair of distributions, in bits.

    ``JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2``: 0 for the same, 1 for disjoint ones. It is the
    divergence, not its root. Few observations of many alternatives make it too large.

    Args:
        weights: ``[D, n]`` counts or shares; each row is made to add up to 1.

    Returns:
        ``[D, D]``, symmetric, 0 on the diagonal; NaN for a row without weight.
    """
    p = ratio(weights, weights.sum(-1, keepdims=True))
    own = _entropy(p)
    found = np.empty((len(p), len(p)))
    for i, row in enumerate(p):  # a row at a time: D * D * n would be much for a large vocabulary
        found[i] = _entropy((row + p) / 2) - (own[i] + own) / 2
    np.fill_diagonal(found, np.where(np.isnan(own), np.nan, 0.0))
    return np.maximum(found, 0.0)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log2(p, out=np.zeros_like(p), where=p > 0)).sum(-1)


@dataclass(frozen=True)
class MatrixCorrelation:
    """Whether pairs that are far apart in one matrix are so in another.

    Attributes:
        value: Spearman's rho over the pairs; NaN for fewer than three domains or a constant side.
        p_value: Share of the orders of the domains in which it is at least as large.
        num_pairs: ``D (D - 1) / 2``.
    """

    value: float
    p_value: float
    num_pairs: int


def correlation(first: np.ndarray, second: np.ndarray, seed: int = 0) -> MatrixCorrelation:
    """Rank correlation of two matrices of divergences, with Mantel's test.

    Pairs that share a domain are not independent, so that an interval for independent pairs would be
    too narrow: the domains of one matrix are put into other orders instead, all of them where they are
    at most `MOST_PERMUTATIONS`, else so many drawn at random. Source: Mantel, Cancer Research 27, 1967.

    Args:
        first: ``[D, D]`` symmetric.
        second: ``[D, D]`` symmetric.
        seed: Of the orders that are drawn.

    Raises:
        ImportError: Without scipy.
    """
    num = len(first)
    upper = np.triu_indices(num, 1)
    num_pairs = len(upper[0])
    values = np.concatenate((first[upper], second[upper]))
    constant = num_pairs == 0 or np.ptp(first[upper]) == 0 or np.ptp(second[upper]) == 0
    if num < 3 or constant or np.isnan(values).any():
        return MatrixCorrelation(math.nan, math.nan, num_pairs)
    stats = scipy_stats()
    ranks = stats.zscore(stats.rankdata(first[upper]))
    others = np.zeros((num, num))
    others[upper] = stats.zscore(stats.rankdata(second[upper]))
    others += others.T

    def rho(order: np.ndarray) -> float:
        return float((ranks * others[np.ix_(order, order)][upper]).mean())

    value = rho(np.arange(num))
    found = np.array([rho(order) for order in _orders(num, seed)])
    # rounding must not make the order that is there smaller than itself
    return MatrixCorrelation(value, float((found >= value - 1e-12).mean()), num_pairs)


def _orders(num: int, seed: int) -> list[np.ndarray]:
    """All orders of `num` things, or the first and random ones."""
    if math.factorial(num) <= MOST_PERMUTATIONS:
        return [np.array(order) for order in itertools.permutations(range(num))]
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(num) for _ in range(MOST_PERMUTATIONS - 1)]
    return [np.arange(num), *drawn]
