"""Experts that go together in hand-made maps."""

import numpy as np
import pytest

from remoe.analysis.coactivation import coactivation, lift

# Expert 0 for three tokens, with 1 for two of them; 2 alone; 3 never.
MAP = np.array([[[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]], dtype=bool)


def test_conditional_by_hand():
    found = coactivation(MAP)[0]
    assert found[0] == pytest.approx([1, 2 / 3, 0, 0])
    assert found[1].tolist() == [1, 1, 0, 0]
    assert found[2].tolist() == [0, 0, 1, 0]
    assert np.isnan(found[3]).all()


def test_lift_by_hand():
    """P(0, 1) = 1/2, P(0) = 3/4, P(1) = 1/2."""
    found = lift(MAP)[0]
    assert found[0, 1] == found[1, 0] == pytest.approx(4 / 3)
    assert found[0, 2] == 0
    assert np.isnan(found[:, 3]).all()


def test_all_active_go_together_without_lift():
    everything = np.ones((2, 3, 4), bool)
    assert (coactivation(everything) == 1).all()
    assert (lift(everything) == 1).all()


def test_no_token_and_one_expert():
    assert np.isnan(coactivation(np.zeros((1, 0, 2), bool))).all()
    assert coactivation(np.ones((1, 3, 1), bool)).tolist() == [[[1]]]
