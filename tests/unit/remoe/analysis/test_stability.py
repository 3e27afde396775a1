"""Flips and saturation of hand-made maps."""

import numpy as np
import pytest

from remoe.analysis.stability import flip_count, flip_rate, flips_by_layer, saturation

# [L=2, T=2, E=4]
BEFORE = np.array([[[1, 0, 0, 0], [0, 1, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]]], dtype=bool)
AFTER = np.array([[[0, 0, 0, 1], [0, 1, 0, 0]], [[1, 0, 0, 0], [1, 1, 1, 1]]], dtype=bool)


def test_flips_by_hand():
    """Layer 1: a token leaves expert 0 for 3: two. Layer 2: one leaves, four come. Of 16 pairs 7."""
    assert flips_by_layer(AFTER, BEFORE).tolist() == [2 / 8, 5 / 8]
    assert flip_rate(AFTER, BEFORE) == 7 / 16
    assert flip_count(AFTER, BEFORE) == 7 / 4
    assert flip_rate(BEFORE, AFTER) == 7 / 16


def test_nothing_changes_and_everything_changes():
    assert flip_rate(BEFORE, BEFORE) == 0
    assert flip_rate(~BEFORE, BEFORE) == 1


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4)], ids=["no token", "dense"])
def test_without_tokens_or_layers_there_is_no_rate(shape):
    nothing = np.zeros(shape, bool)
    assert np.isnan(flip_rate(nothing, nothing))


def test_saturation_by_hand():
    """Of the last map's 2 and 5 pairs 1 and 1 were active; of the first's 2 and 2, 1 and 1 stay."""
    assert saturation(BEFORE, AFTER).tolist() == [1 / 2, 1 / 5]
    assert saturation(AFTER, BEFORE).tolist() == [1 / 2, 1 / 2]


def test_a_dense_map_has_all_pairs_and_keeps_few():
    everything = np.ones_like(AFTER)
    assert saturation(everything, AFTER).tolist() == [1, 1]
    assert saturation(AFTER, everything).tolist() == [2 / 8, 5 / 8]


def test_a_last_map_without_active_pairs_has_no_saturation():
    assert np.isnan(saturation(AFTER, np.zeros_like(AFTER))).all()


def test_maps_of_other_texts_are_refused():
    with pytest.raises(ValueError, match=r"different shapes, \(2, 2, 4\) and \(2, 1, 4\)"):
        flip_rate(AFTER, BEFORE[:, :1])
