"""Distances of hand-made domains."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from remoe.analysis.divergence import correlation, jensen_shannon


def test_divergence_by_hand():
    """The same: 0. Disjoint: 1 bit. (1, 0) and (1/2, 1/2): H(3/4, 1/4) - 1/2."""
    found = jensen_shannon(np.array([[4, 0], [9, 0], [0, 2], [3, 3]]))
    half = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5
    assert found[0] == pytest.approx([0, 0, 1, half])
    assert np.array_equal(found, found.T)


def test_divergence_is_the_square_of_scipys_distance():
    p = np.random.default_rng(0).random((4, 30))
    found = jensen_shannon(p)
    for i in range(4):
        for j in range(4):
            assert found[i, j] == pytest.approx(jensenshannon(p[i], p[j], base=2) ** 2, abs=1e-12)


def test_a_domain_without_tokens_has_no_distance():
    found = jensen_shannon(np.array([[1, 2], [0, 0]]))
    assert found[0, 0] == 0
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1]).all()


def distances(points):
    return np.abs(np.subtract.outer(points, points)).astype(float)


def test_the_same_order_of_distances_is_found_and_is_no_chance():
    points = np.array([0, 1, 3, 7, 15])
    found = correlation(distances(points), distances(points) ** 2)
    assert found.value == pytest.approx(1)
    assert found.num_pairs == 10
    assert found.p_value == 1 / 120  # of all orders of five domains only this one


def test_opposite_orders_correlate_negatively():
    found = correlation(distances([0, 1, 3, 7, 15]), 20 - distances([0, 1, 3, 7, 15]))
    assert found.value == pytest.approx(-1)
    assert found.p_value == 1


def test_many_domains_are_drawn_and_draws_repeat():
    points = np.random.default_rng(0).random((2, 9))
    one = correlation(distances(points[0]), distances(points[1]))
    assert one == correlation(distances(points[0]), distances(points[1]))
    assert 0.01 < one.p_value < 1


def test_values_of_chance_are_as_likely_as_they_say():
    """Of 200 unrelated pairs about a tenth has a p-value up to 0.1."""
    generator = np.random.default_rng(0)
    small = 0
    for _ in range(200):
        first, second = generator.random((2, 5, 2))
        between = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (first, second)]
        small += correlation(*between).p_value <= 0.1
    assert 0.05 <= small / 200 <= 0.15


@pytest.mark.parametrize("num", [0, 1, 2])
def test_fewer_than_three_domains_have_no_correlation(num):
    assert np.isnan(correlation(distances(np.arange(num)), distances(np.arange(num))).value)


def test_equal_distances_and_missing_ones_have_no_correlation():
    same, other = 1 - np.eye(4), distances([0, 1, 3, 7])
    assert np.isnan(correlation(other, same).value)
    other[0, 1] = other[1, 0] = np.nan
    assert np.isnan(correlation(distances([0, 1, 3, 7]), other).value)
