"""Sparsity of neighbouring tokens in hand-made maps."""

import numpy as np
import pytest

from remoe.analysis.chunks import chunk_sparsity, independent_sparsity

# Two sequences of three tokens over four experts.
MAP = np.array(
    [[[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]]],
    dtype=bool,
)


def test_a_chunk_of_one_token_has_the_routing_s_sparsity():
    assert chunk_sparsity(MAP, 3, 1).tolist() == [1 - 8 / 24]


def test_chunks_lie_within_a_sequence_and_the_rest_is_left_out():
    """Chunks {0, 1} and {3, 4}: unions of 1 and 4 experts; tokens 2 and 5 are left out."""
    assert chunk_sparsity(MAP, 3, 2).tolist() == [1 - 5 / 8]
    assert chunk_sparsity(MAP, 3, 3).tolist() == [1 - (2 + 4) / 8]


def test_a_chunk_that_is_longer_than_a_sequence_has_no_value():
    assert np.isnan(chunk_sparsity(MAP, 3, 4)).all()
    assert np.isnan(chunk_sparsity(np.zeros((2, 0, 4), bool), 3, 1)).all()


def test_all_active_leave_none_and_none_active_leave_all():
    assert chunk_sparsity(np.ones((2, 8, 3), bool), 8, 8).tolist() == [0, 0]
    assert chunk_sparsity(np.zeros((2, 8, 3), bool), 8, 8).tolist() == [1, 1]


def test_independent_neighbours_by_hand():
    """Experts with shares 1/2, 1/3, 1/3 and 1/6 of the six tokens."""
    expected = ((1 / 2) ** 2 + 2 * (2 / 3) ** 2 + (5 / 6) ** 2) / 4
    assert independent_sparsity(MAP, 2) == pytest.approx([expected])
    assert independent_sparsity(MAP, 1) == pytest.approx([chunk_sparsity(MAP, 3, 1)[0]])
    assert np.isnan(independent_sparsity(np.zeros((1, 0, 4), bool), 2)).all()


def test_neighbours_drawn_at_random_are_as_sparse_as_said():
    random = np.random.default_rng(0).random((1, 64 * 400, 6)) < np.linspace(0.02, 0.2, 6)
    assert chunk_sparsity(random, 64, 8) == pytest.approx(independent_sparsity(random, 8), abs=0.01)


@pytest.mark.parametrize(
    ("length", "size", "message"),
    [(4, 1, "sequence_length 4: does not divide 6"), (3, 0, "size 0: give 1 token or more")],
)
def test_sizes_that_cannot_be_are_refused(length, size, message):
    with pytest.raises(ValueError, match=message):
        chunk_sparsity(MAP, length, size)
