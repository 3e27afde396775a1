"""Copies of one expert: even parts of the tokens, and gates that sum to about one."""

import pytest
import torch

from remoe.calibration import cluster_gates, even_gates, fit_router_to_clusters

H, E = 32, 4


def four_groups(num_tokens=2000, noise=0.2):
    """Tokens about four directions, behind a norm with a shared part; and their groups."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(num_tokens) % E
    states = torch.eye(E, H)[groups] * 4 + 1.0
    states += noise * torch.randn(num_tokens, H, generator=generator)
    return states / states.square().mean(dim=1, keepdim=True).sqrt(), groups


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("num_chosen", [1, 3])
def test_even_gates_give_each_expert_about_its_share_and_each_token_its_number(num_chosen):
    scores = torch.randn(4000, 8, generator=seeded()) + torch.linspace(-0.5, 0.5, 8)
    gates = even_gates(scores, num_chosen)
    assert torch.equal((gates > 0).sum(1), torch.full((4000,), num_chosen))
    assert torch.allclose(gates.sum(1), torch.ones(4000))
    load = (gates > 0).float().mean(0) * 8 / num_chosen
    assert load.min() > 0.8 and load.max() < 1.2


def test_even_scores_are_left_alone():
    scores = torch.eye(4).repeat(5, 1)
    assert torch.equal(even_gates(scores), scores)


def test_groups_of_tokens_that_lie_apart_get_an_expert_each():
    states, groups = four_groups()
    gates = cluster_gates(states, E, generator=seeded())
    counts = torch.stack([gates[groups == g].sum(0) for g in range(E)])
    assert torch.equal(counts.max(dim=1).values, torch.full((E,), 500.0))
    fit = fit_router_to_clusters(states, E, 1, seeded())
    assert fit.active_experts == pytest.approx(1, abs=0.05)
    assert fit.sum_error < 0.02  # so that copies compute what the one did


@pytest.mark.parametrize("topk", [1, 1.5, 3])
def test_tokens_in_one_cloud_are_divided_evenly_and_their_gates_sum_to_about_one(topk):
    states = torch.randn(4000, H, generator=seeded()) + 1
    states = states / states.square().mean(dim=1, keepdim=True).sqrt()
    fit = fit_router_to_clusters(states, E, topk, seeded())
    probs = (states @ fit.weight.T).relu()
    assert fit.active_experts == pytest.approx(topk, rel=0.1)
    assert probs.sum(1).mean() == pytest.approx(1, abs=0.01)
    load = (probs > 0).float().mean(0)
    assert load.max() < 1.5 * load.mean()


def test_the_same_seed_gives_the_same_router():
    states, _ = four_groups()
    one, two = (fit_router_to_clusters(states, E, 1, seeded()).weight for _ in range(2))
    assert torch.equal(one, two)


def test_fewer_tokens_than_experts_are_refused():
    with pytest.raises(ValueError, match="3 tokens cannot show 4 experts"):
        fit_router_to_clusters(torch.randn(3, H), E, 1)


def test_more_active_experts_than_there_are_is_refused():
    with pytest.raises(ValueError, match="up to the 4 experts"):
        fit_router_to_clusters(torch.randn(30, H), E, 5)
