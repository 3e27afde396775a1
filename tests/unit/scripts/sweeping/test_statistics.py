"""Means, standard errors and paired differences by hand."""

import math

import pytest

from sweeping.statistics import estimate, paired_difference


def test_mean_and_standard_error_by_hand():
    found = estimate([1.0, 2.0, 6.0])  # deviations -2, -1, 3: variance 14/2 = 7
    assert (found.mean, found.count) == (3.0, 3)
    assert math.isclose(found.error, math.sqrt(7 / 3))


def test_the_interval_of_three_values_has_students_quantile():
    low, high = estimate([1.0, 2.0, 6.0]).interval()
    half = 4.302653 * math.sqrt(7 / 3)  # t of 2 degrees of freedom at 97.5%
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


def test_one_value_has_no_error_and_no_interval():
    found = estimate([5.0])
    assert (found.mean, found.error, found.interval()) == (5.0, None, None)
    assert estimate([]) is None


def test_a_paired_difference_uses_the_seeds_that_both_have():
    found = paired_difference({1: 2.0, 2: 5.0, 3: 9.0}, {1: 1.0, 2: 3.0, 7: 0.0})
    assert (found.mean, found.count) == (1.5, 2)  # differences 1 and 2
    assert math.isclose(found.error, 0.5)


def test_seeds_that_move_both_runs_do_not_widen_a_paired_difference():
    baseline = {1: 5.0, 2: 7.0, 3: 9.0}
    found = paired_difference({seed: loss - 0.5 for seed, loss in baseline.items()}, baseline)
    assert (found.mean, found.error) == (-0.5, 0.0)


def test_without_a_common_seed_there_is_no_difference():
    assert paired_difference({1: 2.0}, {2: 2.0}) is None
