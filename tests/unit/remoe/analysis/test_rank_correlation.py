"""Spearman's rho and its interval."""

import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

from remoe.analysis import rank_correlation as module
from remoe.analysis.rank_correlation import rank_correlation


def each_its_own(x, y):
    return rank_correlation(np.array(x), np.array(y), np.arange(len(x)))


def test_rho_by_hand():
    """Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)."""
    found = each_its_own(np.arange(5), [20, 10, 40, 30, 500])
    assert found.value == pytest.approx(0.8)
    assert (found.num_pairs, found.num_groups) == (5, 5)


def test_rho_is_scipys_with_ties_too():
    x, y = np.random.default_rng(0).integers(0, 6, (2, 80))
    assert each_its_own(x, y).value == pytest.approx(spearmanr(x, y).statistic)


def test_a_perfect_correlation_is_perfect_in_every_draw():
    found = each_its_own(np.arange(9), -np.exp(np.arange(9)))
    assert (found.value, found.low, found.high) == pytest.approx((-1, -1, -1), abs=0.02)


@pytest.mark.parametrize("rho", [0.0, -0.5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(rho, monkeypatch):
    """200 samples of 60 pairs; a normal pair's rank correlation is 6 / pi * asin(rho / 2)."""
    monkeypatch.setattr(module, "NUM_DRAWS", 300)
    truth = 6 / np.pi * np.arcsin(rho / 2)
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        x, noise = generator.normal(size=(2, 60))
        found = each_its_own(x, rho * x + np.sqrt(1 - rho**2) * noise)
        inside += found.low <= truth <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_pairs_of_few_groups_have_a_wider_interval():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    many = rank_correlation(np.repeat(x, 20), np.repeat(y, 20), np.arange(600))
    few = rank_correlation(np.repeat(x, 20), np.repeat(y, 20), np.repeat(np.arange(30), 20))
    assert few.value == pytest.approx(many.value)
    assert few.high - few.low > 3 * (many.high - many.low)
    assert few.num_groups == 30


def test_the_interval_is_the_same_each_time_and_in_blocks(monkeypatch):
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    first = each_its_own(x, y)
    assert each_its_own(x, y) == first
    monkeypatch.setattr(module, "_AT_ONCE", 7 * 40)
    other = each_its_own(x, y)
    assert (other.low, other.high) == pytest.approx((first.low, first.high), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([1], [2]), ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), ([1, 2, 3, 4], [7, 7, 7, 7])],
    ids=["none", "one", "constant first", "constant second"],
)
def test_what_has_no_correlation_is_nan(first, second):
    found = each_its_own(first, second)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_one_group_has_no_interval():
    found = rank_correlation(np.array([1, 2, 3]), np.array([1, 3, 2]), np.zeros(3, int))
    assert found.value == pytest.approx(0.5)
    assert np.isnan([found.low, found.high]).all()


def test_without_scipy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install remoe-megatron\[analysis\]"):
        each_its_own(np.arange(5), np.arange(5)[::-1])
