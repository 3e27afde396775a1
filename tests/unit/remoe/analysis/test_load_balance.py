"""Balance of hand-made loads."""

import numpy as np
import pytest

from remoe.analysis.load_balance import (
    coefficient_of_variation,
    fraction_below,
    max_over_mean,
    over_ranks,
)

# Even, all on one expert, none at all.
LOADS = np.array([[5, 5, 5, 5], [0, 12, 0, 0], [0, 0, 0, 0]])


def test_variation_is_none_for_an_even_load_and_the_root_of_the_others_for_one_expert():
    found = coefficient_of_variation(LOADS)
    assert found[:2] == pytest.approx([0, np.sqrt(3)])
    assert np.isnan(found[2])


def test_the_fullest_expert_by_the_mean():
    assert max_over_mean(LOADS)[:2].tolist() == [1, 4]
    assert np.isnan(max_over_mean(LOADS)[2])
    assert max_over_mean(np.array([1, 2, 6])) == 2


def test_a_single_expert_is_even():
    one = np.array([[7]])
    assert (coefficient_of_variation(one), max_over_mean(one)) == ([0], [1])


def test_experts_below_a_share_of_the_tokens():
    """Of 640 tokens a share of 1/64 is ten; exactly ten is not below."""
    loads = np.array([[9, 10, 621, 0], [640, 640, 640, 640]])
    assert fraction_below(loads, 640).tolist() == [0.5, 0]
    assert fraction_below(loads, 640, share=1.0).tolist() == [1, 0]
    assert np.isnan(fraction_below(np.zeros((2, 3)), 0)).all()


def test_ranks_hold_neighbouring_experts():
    loads = np.array([[1, 2, 3, 4], [0, 0, 0, 9]])
    assert over_ranks(loads, 2).tolist() == [[3, 7], [0, 9]]
    assert np.array_equal(over_ranks(loads, 4), loads)
    assert over_ranks(loads, 1).tolist() == [[10], [9]]


@pytest.mark.parametrize("num_ranks", [0, 3, 8])
def test_experts_that_do_not_spread_evenly_are_refused(num_ranks):
    with pytest.raises(ValueError, match=f"num_ranks {num_ranks}: give a divisor of the 4"):
        over_ranks(LOADS, num_ranks)
