"""Spearman's rank correlation of observations that come in groups, with an interval."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

INTERVAL = 0.95
NUM_DRAWS = 1000
_AT_ONCE = 2**22  # weights of a block of draws


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho.

    Attributes:
        value: In [-1, 1]; NaN where one side is constant.
        low: Lower end of the interval of `INTERVAL`; NaN for a single group.
        high: Upper end.
        num_pairs: Observations.
        num_groups: Independent ones.
    """

    value: float
    low: float
    high: float
    num_pairs: int
    num_groups: int


def rank_correlation(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray, seed: int = 0
) -> RankCorrelation:
    """Spearman's rho of paired values, ties at their middle rank.

    The interval is that of a bootstrap over groups (percentiles of `NUM_DRAWS` draws, each of as many
    groups as there are, with replacement): observations within a group may depend on each other. Ranks
    stay those of the whole sample.

    Args:
        first: ``[n]`` numbers.
        second: ``[n]`` numbers.
        groups: ``[n]`` integers: which group each pair is of; each its own for independent pairs.
        seed: Of the draws.

    Raises:
        ImportError: Without scipy.
    """
    _, index = np.unique(groups, return_inverse=True)
    num_groups = int(index.max()) + 1 if len(index) else 0
    about = {"num_pairs": len(first), "num_groups": num_groups}
    if len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return RankCorrelation(math.nan, math.nan, math.nan, **about)
    rank = scipy_stats().rankdata
    x, y = rank(first), rank(second)
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    moments = np.stack(
        [np.bincount(index, weights=w) for w in (np.ones_like(x), x, y, x * x, y * y, x * y)], 1
    )
    value = float(_correlation(moments.sum(0)))
    if num_groups < 2:
        return RankCorrelation(value, math.nan, math.nan, **about)
    drawn = _correlation(_draws(moments, seed))
    low, high = np.nanquantile(drawn, ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))
    return RankCorrelation(value, float(low), float(high), **about)


def _draws(moments: np.ndarray, seed: int) -> np.ndarray:
    """Sums of moments over groups drawn at random, ``[NUM_DRAWS, 6]``."""
    generator = np.random.default_rng(seed)
    num_groups = len(moments)
    even = np.full(num_groups, 1 / num_groups)
    block = max(1, min(NUM_DRAWS, _AT_ONCE // num_groups))
    sizes = [min(block, NUM_DRAWS - start) for start in range(0, NUM_DRAWS, block)]
    return np.concatenate(
        [generator.multinomial(num_groups, even, size=size) @ moments for size in sizes]
    )


def _correlation(moments: np.ndarray) -> np.ndarray:
    """Pearson's r of ``[..., 6]`` sums of 1, x, y, x^2, y^2, x y."""
    num, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    spread = np.sqrt(np.maximum(num * xx - x * x, 0) * np.maximum(num * yy - y * y, 0))
    return np.divide(num * xy - x * y, spread, out=np.full_like(spread, np.nan), where=spread > 0)


def scipy_stats() -> Any:
    """The module `scipy.stats`.

    Raises:
        ImportError: In one line that says how to get it.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError(
            "rank correlations need scipy: pip install remoe-megatron[analysis]"
        ) from error
    return stats
