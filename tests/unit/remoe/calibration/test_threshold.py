"""Thresholds against hand values: between logits, at ties, for none and for all."""

import pytest
import torch

from remoe import relu_routing
from remoe.calibration import threshold_for_active_experts

LOGITS = torch.tensor([[3.0, -1.0], [0.5, -2.0]])  # two tokens, two experts


@pytest.mark.parametrize(
    ("active", "threshold"),
    [(0.0, 3.0), (0.5, 1.75), (1.0, -0.25), (1.5, -1.5)],
    ids=["none", "the largest", "one a token", "all but the smallest"],
)
def test_it_lies_half_way_between_the_last_that_is_in_and_the_first_that_is_out(active, threshold):
    assert threshold_for_active_experts(LOGITS, active) == threshold
    assert (threshold < LOGITS).sum() == active * 2


def test_all_experts_need_a_threshold_just_below_the_smallest_logit():
    threshold = threshold_for_active_experts(LOGITS, 2.0)
    assert -2.001 < threshold < -2.0
    assert relu_routing(LOGITS, threshold)[1].all()


@pytest.mark.parametrize(("active", "found"), [(0.25, 0), (0.5, 2), (1.0, 2), (1.2, 2), (1.9, 4)])
def test_equal_logits_go_in_or_stay_out_together_whichever_is_nearer(active, found):
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert (logits > threshold_for_active_experts(logits, active)).sum() == found


def test_neighbouring_floats_are_told_apart():
    low = torch.tensor(1.0)
    high = torch.nextafter(low, torch.tensor(2.0))
    logits = torch.stack([high, low]).view(1, 2)
    assert (logits > threshold_for_active_experts(logits, 1.0)).tolist() == [[True, False]]


def test_on_random_logits_the_mean_is_that_which_was_asked_for():
    logits = torch.randn(257, 16, generator=torch.Generator().manual_seed(0))
    for active in (0.1, 1.0, 3.7, 15.9):
        threshold = threshold_for_active_experts(logits, active)
        found = (logits > threshold).sum(1).float().mean()
        assert found == pytest.approx(active, abs=0.5 / 257)


@pytest.mark.parametrize("active", [-0.1, 2.1])
def test_a_number_that_the_experts_do_not_have_is_refused(active):
    with pytest.raises(ValueError, match="give a number from 0 to 2"):
        threshold_for_active_experts(LOGITS, active)


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        threshold_for_active_experts(torch.zeros(0, 2), 1.0)
