"""Every equation on numbers small enough to follow with a pencil.

Three tokens, four experts, k = 1:

    logits           probs            map
    t0  .5 -1  2  0     .5  0  2  0      1 0 1 0     a logit of exactly 0 is inactive
    t1 -.3 -.2 1 -4      0  0  1  0      0 0 1 0
    t2 -1 -1 -1 -1       0  0  0  0      0 0 0 0     a token with no expert
    tokens per expert                    1 0 2 0     experts 1 and 3 get no token
"""

import pytest
import torch

from remoe import (
    RoutingState,
    expert_load,
    l1_loss,
    relu_routing,
    routing_counts,
    sparsity,
    target_sparsity,
    update_reg_coeff,
)

LOGITS = [[0.5, -1.0, 2.0, 0.0], [-0.3, -0.2, 1.0, -4.0], [-1.0, -1.0, -1.0, -1.0]]
PROBS = [[0.5, 0.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
MAP = [[True, False, True, False], [False, False, True, False], [False, False, False, False]]
NUM_TOKENS, NUM_EXPERTS, TOPK = 3, 4, 1


@pytest.fixture
def logits():
    return torch.tensor(LOGITS, requires_grad=True)


def test_a_token_visits_the_experts_with_a_positive_logit(logits):
    probs, routing_map = relu_routing(logits)
    assert torch.equal(probs, torch.tensor(PROBS))
    assert torch.equal(routing_map, torch.tensor(MAP))


def test_counts_are_tokens_by_expert_then_tokens_then_tokens_without_expert():
    assert routing_counts(torch.tensor(MAP)).tolist() == [1, 0, 2, 0, 3, 1]


def test_expert_load_is_relative_to_a_fair_share():
    # E / (k T) = 4/3; a fair share is 3/4 of a token
    load = expert_load(torch.tensor([1, 0, 2, 0]), TOPK, NUM_TOKENS)
    torch.testing.assert_close(load, torch.tensor([4 / 3, 0.0, 8 / 3, 0.0]))


def test_loss_without_load_is_the_mean_row_sum(logits):
    probs, _ = relu_routing(logits)
    # (0.5 + 2 + 1) / 3
    torch.testing.assert_close(l1_loss(probs), torch.tensor(3.5 / 3))


def test_loss_with_load_weighs_each_expert(logits):
    probs, _ = relu_routing(logits)
    load = torch.tensor([4 / 3, 0.0, 8 / 3, 0.0])
    # (4/3 * 0.5 + 8/3 * (2 + 1)) / 3 = 26/9
    torch.testing.assert_close(l1_loss(probs, load), torch.tensor(26 / 9))


@pytest.mark.parametrize(
    ("load", "by_expert"),
    [
        # f_e / T on active pairs, nothing on inactive ones
        ([4 / 3, 0.0, 8 / 3, 0.0], [4 / 9, 0.0, 8 / 9, 0.0]),
        (None, [1 / 3, 1 / 3, 1 / 3, 1 / 3]),
    ],
    ids=["with load", "without load"],
)
def test_gradient_is_one_constant_per_expert_on_active_pairs_only(logits, load, by_expert):
    probs, routing_map = relu_routing(logits)
    l1_loss(probs, None if load is None else torch.tensor(load)).backward()
    torch.testing.assert_close(logits.grad, routing_map * torch.tensor(by_expert))


def test_sparsity_is_the_share_of_inactive_pairs():
    # 3 of 12 pairs are active
    assert sparsity(torch.tensor(3), torch.tensor(12)).item() == 0.75
    assert target_sparsity(TOPK, NUM_EXPERTS) == 0.75


def test_lambda_follows_sparsity_step_by_step():
    coeff, seen = torch.tensor(1e-8), []
    for active in (6, 5, 3, 2, 3):  # of 12 pairs; the target is 3
        value = sparsity(torch.tensor(active), torch.tensor(12))
        coeff = update_reg_coeff(coeff, value, target_sparsity=0.75, multiplier=1.2)
        seen.append(coeff.item())
    #                           denser   denser   exact    sparser  exact
    assert seen == pytest.approx([1.2e-8, 1.44e-8, 1.44e-8, 1.2e-8, 1.2e-8], rel=1e-6)
    assert seen[1] == seen[2] and seen[3] == seen[4], "at the target lambda stays, to the bit"


def test_two_micro_batches_make_one_step():
    state = RoutingState(NUM_EXPERTS, 1e-8)
    for routing_map, loss in ((torch.tensor(MAP), 3.0), (torch.ones(1, 4, dtype=torch.bool), 5.0)):
        state.record(routing_counts(routing_map), torch.tensor(loss))
    assert state.counts.tolist() == [2, 1, 3, 1, 4, 1]
    assert state.reg_loss.tolist() == [8.0, 2.0]
    # 7 of 16 pairs, not the mean of 3/12 and 4/4
    assert sparsity(state.counts[:4].sum(), state.counts[4] * 4).item() == 1 - 7 / 16
