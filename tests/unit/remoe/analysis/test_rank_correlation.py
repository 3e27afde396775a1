"""Spearman's rho and its interval."""

import sys

import numpy as np
import pytest

from remoe.analysis.rank_correlation import rank_correlation


def test_rho_by_hand():
    """Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)."""
    found = rank_correlation(np.arange(5), np.array([20, 10, 40, 30, 500]))
    assert found.value == pytest.approx(0.8)
    assert found.num_pairs == 5


def test_only_the_order_counts():
    x = np.array([1.0, 5, 2, 9, 4, 7])
    assert rank_correlation(x, np.exp(x)).value == pytest.approx(1)
    assert rank_correlation(x, -(x**3)).value == pytest.approx(-1)


def test_a_perfect_correlation_has_a_point_for_an_interval():
    found = rank_correlation(np.arange(9), -np.arange(9))
    assert (found.low, found.high) == pytest.approx((-1, -1))


@pytest.mark.parametrize("rho", [0.0, -0.5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(rho):
    """400 samples of 60 pairs; a normal pair's rank correlation is 6 / pi * asin(rho / 2)."""
    truth = 6 / np.pi * np.arcsin(rho / 2)
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        x, noise = generator.normal(size=(2, 60))
        found = rank_correlation(x, rho * x + np.sqrt(1 - rho**2) * noise)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.98


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([1], [2]), ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), ([1, 2, 3, 4], [7, 7, 7, 7])],
    ids=["none", "one", "constant first", "constant second"],
)
def test_what_has_no_correlation_is_nan(first, second):
    assert np.isnan(rank_correlation(np.array(first), np.array(second)).value)


def test_three_pairs_have_no_interval():
    found = rank_correlation(np.array([1, 2, 3]), np.array([1, 3, 2]))
    assert found.value == pytest.approx(0.5)
    assert np.isnan([found.low, found.high]).all()


def test_without_scipy_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install remoe-megatron\[analysis\]"):
        rank_correlation(np.arange(5), np.arange(5))
