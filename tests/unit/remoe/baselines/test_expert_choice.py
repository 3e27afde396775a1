"""Expert choice against a naive loop over experts, a hand-made case and its edges."""

import pytest
import torch

from remoe.baselines import choose_tokens, expert_capacity


def naive_map(scores, capacity):
    """Each expert in turn picks the best token that it has not, one at a time."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for e in range(scores.shape[1]):
        for _ in range(capacity):
            free = [t for t in range(len(scores)) if not chosen[t, e]]
            chosen[max(free, key=lambda t: scores[t, e].item()), e] = True
    return chosen


def scores_of(num_tokens, num_experts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, num_experts, generator=generator).softmax(-1)


def test_a_hand_made_case():
    scores = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    # 4 tokens, k = 1, 2 experts: 2 tokens each. Token 0 has expert 1 by its second best score.
    expected = [[False, True], [True, False], [False, True], [True, False]]
    assert choose_tokens(scores, topk=1).tolist() == expected


def test_a_token_may_have_none_or_all_experts():
    scores = torch.tensor([[0.5, 0.5], [0.4, 0.4]])
    assert choose_tokens(scores, topk=1).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("num_experts", [2, 3, 8])
@pytest.mark.parametrize("topk", [1, 2])
def test_it_is_the_naive_loop(num_tokens, num_experts, topk):
    scores = scores_of(num_tokens, num_experts)
    capacity = expert_capacity(num_tokens, topk, num_experts)
    assert torch.equal(choose_tokens(scores, topk), naive_map(scores, capacity))


@pytest.mark.parametrize("topk", [1, 2, 8])
def test_every_expert_has_the_same_load(topk):
    load = choose_tokens(scores_of(64, 8), topk).sum(0)
    assert load.tolist() == [64 * topk // 8] * 8


def test_all_experts_take_all_tokens_where_k_is_e():
    assert choose_tokens(scores_of(5, 4), topk=4).all()


@pytest.mark.parametrize(
    ("num_tokens", "topk", "num_experts", "capacity"),
    [
        (16, 1, 8, 2),
        (17, 1, 8, 2),  # 2.125
        (20, 1, 8, 3),  # 2.5
        (23, 1, 8, 3),  # 2.875
        (1, 1, 8, 1),  # at least one
        (3, 1, 8, 1),
        (3, 8, 8, 3),  # at most all
        (0, 1, 8, 0),
    ],
)
def test_a_share_that_is_not_whole_is_rounded(num_tokens, topk, num_experts, capacity):
    assert expert_capacity(num_tokens, topk, num_experts) == capacity


def test_padding_is_never_chosen_and_leaves_its_places_to_others():
    scores = scores_of(8, 2)
    padding = torch.arange(8) >= 5
    routing_map = choose_tokens(scores, 1, padding)
    assert not routing_map[padding].any()
    assert torch.equal(routing_map[:5], naive_map(scores[:5], 4))


def test_more_places_than_tokens_stay_empty():
    padding = torch.arange(8) >= 1
    assert choose_tokens(scores_of(8, 2), 1, padding).sum(0).tolist() == [1, 1]


def test_the_gradient_is_that_of_the_chosen_softmax_scores():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    weight = torch.rand(6, 3, dtype=torch.float64)

    def loss(x):
        scores = x.softmax(-1)
        return (scores * choose_tokens(scores.detach(), 1) * weight).sum()

    assert torch.autograd.gradcheck(loss, logits)
