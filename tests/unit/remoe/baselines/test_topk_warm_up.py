"""The schedule of k while TopK warms up."""

from remoe.baselines import default_warm_up_experts, topk_at_step


def test_k_falls_at_once_after_the_last_warm_step():
    ks = [topk_at_step(topk=1, warm_up_experts=6, warm_up_steps=3, step=i) for i in range(5)]
    assert ks == [6, 6, 6, 1, 1]


def test_no_steps_are_no_warm_up():
    assert topk_at_step(topk=2, warm_up_experts=6, warm_up_steps=0, step=0) == 2


def test_the_default_is_the_papers_six_of_eight():
    assert default_warm_up_experts(1, 8) == 6
    assert default_warm_up_experts(1, 2) == 1
    assert default_warm_up_experts(4, 4) == 4  # never fewer than k
