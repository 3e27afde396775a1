"""Active experts of hand-made tokens."""

import numpy as np
import pytest

from remoe.analysis.experts_per_token import (
    by_domain,
    by_layer,
    frequency_correlation,
    histogram,
    mean_by_token_frequency,
)

# Two layers of three tokens: none, one, all of three experts; then one each.
MAP = np.array([[[0, 0, 0], [0, 1, 0], [1, 1, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]], dtype=bool)


def test_histogram_by_hand():
    assert histogram(MAP).tolist() == [[1, 1, 0, 1], [0, 3, 0, 0]]


def test_every_number_of_experts_has_its_column():
    assert histogram(np.zeros((1, 0, 2), bool)).tolist() == [[0, 0, 0]]  # no token
    assert histogram(np.ones((1, 5, 2), bool)).tolist() == [[0, 0, 5]]  # all active
    assert histogram(np.ones((1, 4, 1), bool)).tolist() == [[0, 4]]  # one expert


def test_means_by_layer_and_domain():
    counts = MAP.sum(1)
    assert by_layer(counts, 3) == pytest.approx([4 / 3, 1])
    assert np.isnan(by_layer(np.zeros((2, 3)), 0)).all()
    by_two = np.stack([MAP[:, :1].sum(1), MAP[:, 1:].sum(1), np.zeros((2, 3), int)])
    found = by_domain(by_two, np.array([1, 2, 0]))
    assert found[:2].tolist() == [[0, 1], [2, 1]]
    assert np.isnan(found[2]).all()


def test_bins_by_hand():
    """Counts 1, 1, 2, 16 in two bins of log2: 0 to 2 and 2 to 4; id 2 does not occur."""
    count = np.array([1, 16, 0, 1, 2])
    active = np.array([[4, 0], [16, 8], [0, 0], [2, 2], [3, 0]])
    bins = mean_by_token_frequency(count, active, 2)
    assert bins.least.tolist() == [1, 16]
    assert bins.most.tolist() == [2, 16]
    assert bins.num_ids.tolist() == [3, 1]
    assert bins.num_tokens.tolist() == [4, 16]
    assert bins.active_experts.tolist() == [[9 / 4, 2 / 4], [1, 0.5]]


def test_empty_bins_are_left_out_and_no_token_is_lost():
    generator = np.random.default_rng(0)
    count = generator.integers(0, 1000, 500) * generator.integers(0, 2, 500)
    active = generator.integers(0, 9, (500, 3)) * count[:, None]
    bins = mean_by_token_frequency(count, active, 20)
    assert (bins.num_ids > 0).all()
    assert bins.num_tokens.sum() == count.sum()
    sums = (bins.active_experts * bins.num_tokens[:, None]).sum(0)
    assert sums == pytest.approx(active.sum(0))
    assert (bins.most[:-1] < bins.least[1:]).all()


def test_ids_that_occur_once_are_one_bin_and_no_token_is_none():
    bins = mean_by_token_frequency(np.ones(4, int), np.array([[1], [2], [3], [6]]))
    assert bins.active_experts.tolist() == [[3]]
    nothing = mean_by_token_frequency(np.zeros(4, int), np.zeros((4, 2), int))
    assert nothing.active_experts.shape == (0, 2)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins 0: give 1 or more"):
        mean_by_token_frequency(np.ones(4, int), np.ones((4, 1)), 0)


def test_rare_tokens_with_more_experts_correlate_negatively():
    """Ids 5, 6 and 9 occur once, twice and three times, with 3, 2 and 1 experts."""
    found = frequency_correlation(np.array([9, 6, 9, 5, 6, 9]), np.array([1, 2, 1, 3, 2, 1]))
    assert found.value == pytest.approx(-1)
    assert (found.num_pairs, found.num_groups) == (6, 3)


def test_experts_that_ignore_the_token_do_not_correlate_however_rare_they_are():
    """Most ids seldom, most tokens without an expert: where means by id would seem to grow."""
    generator = np.random.default_rng(0)
    ids = generator.zipf(1.3, 20_000) % 4000
    found = frequency_correlation(ids, generator.random(20_000) < 0.1)
    assert abs(found.value) < 0.03
    assert found.low < 0 < found.high


def test_the_same_number_for_all_tokens_has_no_correlation():
    assert np.isnan(frequency_correlation(np.array([1, 1, 2]), np.array([2, 2, 2])).value)
    assert np.isnan(frequency_correlation(np.zeros(0, int), np.zeros(0, int)).value)
