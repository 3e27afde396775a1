"""SparseMixer-v2 against a published implementation, a naive reference and a hand-made case."""

import contextlib
import math

import pytest
import torch

from remoe.baselines import num_draws, sparsemixer_routing

T, E = 64, 8


def logits_of(num_tokens=T, num_experts=E, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_tokens, num_experts, generator=generator)


def draws_of(topk, num_tokens=T, num_experts=E, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_tokens, num_draws(topk, num_experts), generator=generator)


def naive_token(z, topk, jitter, draws):
    """One token in plain Python floats: experts, gates, and d gate_i / d z_j."""
    chosen, gates, jacobian = [], [], []
    for i in range(topk):
        left = [e for e in range(len(z)) if e not in chosen]
        top = max(z[e] for e in left)
        near = [e for e in left if not (top - z[e]) / max(abs(z[e]), top) > 2 * jitter]
        total = sum(math.exp(z[e] - top) for e in near)
        pi = {e: math.exp(z[e] - top) / total for e in near}
        best = max(left, key=lambda e: z[e])
        u = draws[i * (len(z) + 1) : (i + 1) * (len(z) + 1)]
        expert = max(near, key=lambda e: math.log(pi[e]) - math.log(-math.log(u[e])))
        whole = expert == best or u[-1] >= 0.75
        chosen.append(expert)
        gates.append(pi[expert] * (1 if whole else 1 / 3))
        jacobian.append(
            [
                pi[expert] * ((j == expert) - pi.get(j, 0.0)) if j in pi else 0.0
                for j in range(len(z))
            ]
        )
    return chosen, gates, jacobian


@pytest.mark.parametrize("jitter", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("topk", [1, 2, 3, E])
def test_it_is_the_naive_reference(topk, jitter):
    logits, draws = logits_of().double().requires_grad_(), draws_of(topk)
    weight = torch.rand(T, E, dtype=torch.float64)
    probs, routing_map = sparsemixer_routing(logits, topk, jitter, draws)
    (probs * weight).sum().backward()
    for t in range(T):
        chosen, gates, jacobian = naive_token(
            logits[t].tolist(), topk, jitter, draws[t].double().tolist()
        )
        assert routing_map[t].nonzero().flatten().tolist() == sorted(chosen)
        assert torch.allclose(probs[t, chosen].detach(), torch.tensor(gates).double(), atol=1e-6)
        expected = (weight[t, chosen, None] * torch.tensor(jacobian).double()).sum(0)
        assert torch.allclose(logits.grad[t], expected, atol=1e-6)


class Script:
    """The random numbers that a published implementation draws, in the order of its calls."""

    def __init__(self, draws, topk):
        self.parts = draws.view(T, topk, E + 1).unbind(1)
        self.choice = 0

    @contextlib.contextmanager
    def played(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "exponential_", lambda tensor: self.exponential(tensor))
            patch.setattr(torch, "rand_like", self.uniform)
            # It draws the second of these twice.
            patch.setattr(torch.Tensor, "uniform_", lambda tensor: tensor)
            yield

    def exponential(self, tensor):
        # A standard exponential by inversion of the numbers from which our Gumbel noise is made.
        return tensor.copy_(-self.parts[self.choice][:, :-1].log())

    def uniform(self, tensor):
        weigh = self.parts[self.choice][:, -1:]
        self.choice += 1
        return weigh.clone()


@pytest.mark.parametrize("jitter", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("training", [True, False])
def test_two_choices_are_those_of_phimoe(monkeypatch, training, jitter):
    phimoe = pytest.importorskip("transformers.models.phimoe.modeling_phimoe")
    draws, weight = draws_of(2), torch.rand(T, 2)
    theirs, ours = (logits_of(scale=2.0).requires_grad_() for _ in range(2))
    script = Script(draws, 2)
    with script.played(monkeypatch):
        gates, experts = phimoe.sparsemixer(theirs, jitter, training, top_k=2)
    (gates * weight).sum().backward()
    probs, routing_map = sparsemixer_routing(ours, 2, jitter, draws if training else None)
    mine = probs.gather(1, experts)
    (mine * weight).sum().backward()
    assert torch.equal(routing_map, torch.zeros(T, E, dtype=torch.bool).scatter(1, experts, True))
    # It writes 0.3333 for a third.
    assert torch.allclose(mine, gates, rtol=2e-4, atol=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    if training:
        assert script.choice == 2


def test_one_choice_is_the_first_of_phimoe(monkeypatch):
    phimoe = pytest.importorskip("transformers.models.phimoe.modeling_phimoe")
    draws = draws_of(1)
    both = torch.cat([draws, draws], dim=1)
    theirs, ours = (logits_of(scale=2.0).requires_grad_() for _ in range(2))
    script = Script(both, 2)
    with script.played(monkeypatch):
        gates, experts = phimoe.sparsemixer(theirs, 0.1, True, top_k=2)
    weight = torch.rand(T)
    (gates[:, 0] * weight).sum().backward()
    probs, routing_map = sparsemixer_routing(ours, 1, 0.1, draws)
    (probs.sum(1) * weight).sum().backward()
    assert torch.equal(routing_map.int().argmax(1), experts[:, 0])
    assert torch.allclose(probs.sum(1), gates[:, 0], rtol=2e-4, atol=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_a_hand_made_case():
    logits = torch.tensor([[2.0, 1.9, -1.0]])
    # Near: (2 - 1.9) / 2 = 0.05 <= 0.2 is, (2 + 1) / 2 = 1.5 is not. pi = softmax(2, 1.9).
    pi = math.exp(1.9) / (math.exp(1.9) + math.exp(2.0))
    # Noise -log(-log u): 4.6 for u = 0.99 at expert 1, about 0 for 0.37 at expert 0; 0.5 < 0.75.
    draws = torch.tensor([[0.37, 0.99, 0.99, 0.5]])
    probs, routing_map = sparsemixer_routing(logits, 1, 0.1, draws)
    assert routing_map.tolist() == [[False, True, False]]
    assert probs[0, 1].item() == pytest.approx(pi / 3)
    draws[0, -1] = 0.9
    probs, _ = sparsemixer_routing(logits, 1, 0.1, draws)
    assert probs[0, 1].item() == pytest.approx(pi)


def test_the_largest_logit_keeps_its_gate_whatever_is_drawn():
    logits = torch.tensor([[2.0, 1.9]])
    probs, _ = sparsemixer_routing(logits, 1, 0.1, torch.tensor([[0.99, 0.01, 0.0]]))
    assert probs[0, 0].item() == pytest.approx(1 / (1 + math.exp(-0.1)))


def test_evaluation_takes_the_largest_logits():
    logits = logits_of()
    _, routing_map = sparsemixer_routing(logits, 2, 0.1)
    best = logits.topk(2).indices
    assert torch.equal(routing_map, torch.zeros_like(routing_map).scatter(1, best, True))


def test_experts_are_sampled_as_often_as_their_probability_says():
    logits = torch.tensor([[0.5, 0.4, 0.0, -0.3]]).expand(20000, 4)
    draws = draws_of(1, 20000, 4)
    _, routing_map = sparsemixer_routing(logits, 1, 10.0, draws)
    assert torch.allclose(routing_map.float().mean(0), logits[0].softmax(-1), atol=0.015)


def test_a_sampled_gate_is_whole_one_time_in_four():
    logits = torch.tensor([[1.0, 0.999]]).expand(20000, 2)
    probs, routing_map = sparsemixer_routing(logits, 1, 0.1, draws_of(1, 20000, 2))
    second = probs[routing_map[:, 1], 1]
    is_whole = second > 0.4
    assert is_whole.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_one_token_and_extreme_draws_are_finite():
    for value in (0.0, 1 - 2**-24):
        draws = torch.full((1, num_draws(2, E)), value)
        logits = logits_of(1).requires_grad_()
        probs, routing_map = sparsemixer_routing(logits, 2, 0.1, draws)
        probs.sum().backward()
        assert routing_map.sum() == 2
        assert probs.isfinite().all() and logits.grad.isfinite().all()


def test_equal_logits_of_zero_may_all_be_chosen():
    _, routing_map = sparsemixer_routing(torch.zeros(4096, E), 1, 0.1, draws_of(1, 4096))
    assert (routing_map.sum(0) > 0).all()
