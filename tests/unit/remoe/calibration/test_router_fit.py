"""A ReLU router is recovered from its own gates, and sparser ones keep what they can."""

import pytest
import torch
import torch.nn.functional as F

from remoe.calibration import fit_relu_router

T, H, E = 4000, 16, 6


def tokens():
    """Hidden states behind a norm: a large shared part, and what differs."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(T, H, generator=generator) + torch.linspace(-1, 2, H)
    return states / states.square().mean(dim=1, keepdim=True).sqrt()


def known_router():
    return 0.2 * torch.randn(E, H, generator=torch.Generator().manual_seed(1)) - 0.05


def test_the_gates_of_a_relu_router_are_recovered():
    x, router = tokens(), known_router()
    gates = (x @ router.T).relu()
    active = (gates > 0).sum(1).float().mean().item()
    fit = fit_relu_router(x, gates, active)
    probs = (x @ fit.weight.T).relu()
    assert (probs - gates).square().mean() < 2e-2 * gates.square().mean()
    assert fit.active_experts == pytest.approx(active, rel=0.1)
    assert fit.sum_error < 2e-2


def test_one_expert_that_all_tokens_have_is_plain_least_squares():
    """By hand: x = (1, a), gate 2 + a, so that w = (2, 1) is exact."""
    a = torch.linspace(-1, 1, 50)
    x = torch.stack((torch.ones(50), a), dim=1)
    fit = fit_relu_router(x, (2 + a).view(-1, 1), 1)
    assert torch.allclose(fit.weight, torch.tensor([[2.0, 1.0]]), atol=1e-3)
    assert (fit.active_experts, fit.margin) == (1.0, 0.0)


def topk_gates(x, topk):
    values, chosen = (8 * x @ known_router().T).softmax(dim=1).topk(topk, dim=1)
    return torch.zeros(T, E).scatter_(1, chosen, values)


@pytest.mark.parametrize("topk", [1, 2])
def test_the_gates_of_a_topk_router_are_followed_with_as_many_active_experts(topk):
    x = tokens()
    gates = topk_gates(x, topk)
    fit = fit_relu_router(x, gates, topk)
    probs = (x @ fit.weight.T).relu()
    assert fit.active_experts == pytest.approx(topk, rel=0.05)
    assert (probs > 0).sum(1).float().mean().item() == pytest.approx(fit.active_experts, rel=1e-3)
    assert probs.sum(1).mean().item() == pytest.approx(gates.sum(1).mean().item(), rel=1e-3)
    cosine = F.cosine_similarity(probs.flatten(), gates.flatten(), dim=0)
    assert cosine > 0.8


def test_with_more_active_experts_it_is_nearer():
    x = tokens()
    gates = topk_gates(x, 1)
    errors = [fit_relu_router(x, gates, topk).sum_error for topk in (0.7, 1.0, 1.5)]
    assert errors == sorted(errors, reverse=True)


def test_more_experts_than_the_widest_fit_has_are_not_forced():
    fit = fit_relu_router(tokens(), topk_gates(tokens(), 1), E)
    assert fit.margin == 0 and 1 < fit.active_experts < E


@pytest.mark.parametrize(
    ("num_states", "gates", "topk", "message"),
    [
        (9, torch.ones(8, 2), 1, "9 hidden states for gates of 8 tokens"),
        (1, torch.ones(1, 2), 1, "1 tokens cannot show 2 experts"),
        (8, torch.zeros(8, 2), 1, "no gate is above 0"),
        (8, torch.ones(8, 2), 0, "topk 0: give a number above 0 and up to the 2 experts"),
        (8, torch.ones(8, 2), 2.5, "topk 2.5: give a number above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(num_states, gates, topk, message):
    with pytest.raises(ValueError, match=message):
        fit_relu_router(torch.randn(num_states, 4), gates, topk)
