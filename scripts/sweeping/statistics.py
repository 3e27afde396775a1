"""Means over seeds with their errors, and differences paired by seed."""

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Of the values.
        error: Standard error, ``s / sqrt(n)`` with ``s`` over ``n - 1``; None for one value.
        count: n.
    """

    mean: float
    error: float | None
    count: int

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Student's interval of the mean, ``mean ± t(n - 1) error``; None for one value."""
        if self.error is None:
            return None
        half = float(stats.t.ppf((1 + level) / 2, self.count - 1)) * self.error
        return self.mean - half, self.mean + half


def estimate(values: list[float]) -> Estimate | None:
    """Mean and standard error of the values; None where there are none."""
    count = len(values)
    if count == 0:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count)


def paired_difference(values: dict[int, float], baseline: dict[int, float]) -> Estimate | None:
    """Mean of ``values - baseline`` over the seeds that both have; None where they share none."""
    return estimate([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline)])
