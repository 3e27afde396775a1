"""Spearman's rank correlation with an interval."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

INTERVAL = 0.95
_QUANTILE = 1.959963984540054  # of the normal distribution at (1 + INTERVAL) / 2


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho.

    Attributes:
        value: In [-1, 1]; NaN for fewer than two pairs, or where one side is constant.
        low: Lower end of the interval of `INTERVAL`; NaN for fewer than four pairs.
        high: Upper end.
        num_pairs: Independent observations.
    """

    value: float
    low: float
    high: float
    num_pairs: int


def rank_correlation(first: np.ndarray, second: np.ndarray) -> RankCorrelation:
    """Spearman's rho of paired values, ties at their middle rank.

    The interval is Fisher's, ``tanh(atanh(rho) -+ 1.96 se)``, with the error of ranks,
    ``se = sqrt((1 + rho^2 / 2) / (n - 3))``. Source: Bonett and Wright, Psychometrika 65, 2000.

    Args:
        first: ``[n]`` numbers.
        second: ``[n]`` numbers.

    Raises:
        ImportError: Without scipy.
    """
    num_pairs = len(first)
    if num_pairs < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return RankCorrelation(math.nan, math.nan, math.nan, num_pairs)
    rho = float(scipy_stats().spearmanr(first, second).statistic)
    if num_pairs < 4:
        return RankCorrelation(rho, math.nan, math.nan, num_pairs)
    reach = _QUANTILE * math.sqrt((1 + rho**2 / 2) / (num_pairs - 3))
    # atanh has no value at 1, where the interval is a point
    centre = math.atanh(rho) if abs(rho) < 1 else math.copysign(math.inf, rho)
    return RankCorrelation(rho, math.tanh(centre - reach), math.tanh(centre + reach), num_pairs)


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
