"""Preference of hand-made domains and tokens for experts."""

import numpy as np
import pytest
from scipy.special import rel_entr

from remoe.analysis.specialisation import (
    by_domain,
    by_token,
    divergence_from_uniform,
    mutual_information,
)


def test_shares_are_of_the_domains_tokens():
    counts = np.array([[[4, 0]], [[5, 10]], [[0, 0]]])  # [D=3, L=1, E=2]
    found = by_domain(counts, np.array([4, 10, 0]))
    assert found[:2].tolist() == [[[1, 0]], [[0.5, 1]]]
    assert np.isnan(found[2]).all()


def test_shares_are_of_the_tokens_occurrences():
    found = by_token(np.array([[[1, 3]], [[0, 0]]]), np.array([4, 0]))
    assert found[0].tolist() == [[0.25, 0.75]]
    assert np.isnan(found[1]).all()


def test_divergence_from_uniform_by_hand():
    """Even: 0. All on one of four: 2 bits. Half on two of four: 1 bit. Nothing: no value."""
    weights = np.array([[3, 3, 3, 3], [0, 8, 0, 0], [2, 0, 0, 2], [0, 0, 0, 0]])
    found = divergence_from_uniform(weights)
    assert found[:3] == pytest.approx([0, 2, 1])
    assert np.isnan(found[3])


def test_one_expert_is_uniform():
    assert divergence_from_uniform(np.array([[5]])).tolist() == [0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_divergence_is_the_relative_entropy(axis):
    weights = np.random.default_rng(0).random((3, 4, 5)) + 0.01
    p = np.moveaxis(weights, axis, -1)
    p = p / p.sum(-1, keepdims=True)
    expected = rel_entr(p, 1 / p.shape[-1]).sum(-1) / np.log(2)
    assert np.allclose(divergence_from_uniform(weights, axis), expected)


def test_an_expert_that_follows_the_row_gives_all_its_bits():
    assert mutual_information(np.eye(4) * 10_000) == pytest.approx(2, abs=1e-3)


def test_experts_that_ignore_the_row_give_nothing():
    assert mutual_information(np.outer([100, 300], [3, 5, 1])) == 0
    assert mutual_information(np.array([[9, 1]])) == 0  # one domain
    assert np.isnan(mutual_information(np.zeros((2, 3))))


def test_chance_is_not_taken_for_specialisation():
    """200 rows of 20 visits each, drawn alike: the plain sum says 0.28 bits."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(20, [1 / 8] * 8, size=200)
    assert mutual_information(counts) < 0.04
