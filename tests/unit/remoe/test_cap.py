"""The cap on active experts: which gates stay, what is counted, gradients, and how it anneals.

By hand, E = 4, C = 2 (x marks a dropped gate):

    t0   .5   .2x  .9   .1x     four active, two dropped
    t1   0    .3   0    0       fewer than the cap
    t2   0    0    0    0       none
    t3   .4   .4   .4x  0       equal gates: torch.topk decides
"""

import pytest
import torch

from remoe import cap_active_experts, cap_at_step, relu_routing

PROBS = torch.tensor([[0.5, 0.2, 0.9, 0.1], [0.0, 0.3, 0.0, 0.0], [0.0] * 4, [0.4, 0.4, 0.4, 0.0]])


def naive(probs, cap):
    """Token by token; the gates to keep in the order that `torch.topk` gives them."""
    rows = []
    for row in probs:
        keep = row.topk(cap).indices.tolist()
        rows.append(torch.stack([g if e in keep else g * 0 for e, g in enumerate(row)]))
    return torch.stack(rows) if rows else probs


def test_the_largest_gates_stay():
    probs, routing_map, num_dropped = cap_active_experts(PROBS, PROBS > 0, 2)
    expected = torch.tensor([[0.5, 0.0, 0.9, 0.0], [0.0, 0.3, 0.0, 0.0], [0.0] * 4])
    assert torch.equal(probs[:3], expected)
    assert torch.equal(routing_map, probs > 0)
    assert num_dropped.item() == 2 + 0 + 0 + 1 and num_dropped.dtype == torch.int64


def test_of_equal_gates_stay_as_many_as_the_cap_and_those_that_topk_names():
    gates = torch.full((5, 16), 0.25)
    _, routing_map, num_dropped = cap_active_experts(gates, gates > 0, 3)
    assert routing_map.sum(1).tolist() == [3] * 5 and num_dropped == 5 * 13
    for row, named in zip(routing_map, gates.topk(3, dim=1).indices, strict=True):
        assert row.nonzero().flatten().tolist() == sorted(named.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_tokens", "num_experts", "cap"),
    [(0, 4, 2), (1, 1, 1), (7, 4, 1), (64, 8, 3), (64, 8, 8), (33, 128, 17)],
)
def test_values_and_gradients_are_those_of_a_loop(num_tokens, num_experts, cap, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_tokens, num_experts, generator=generator, dtype=dtype)
    direction = torch.randn(num_tokens, num_experts, generator=generator, dtype=dtype)
    results = []
    for capped in (lambda p: cap_active_experts(p, p > 0, cap)[0], lambda p: naive(p, cap)):
        leaf = logits.clone().requires_grad_()
        probs = capped(relu_routing(leaf)[0])
        (probs * direction).sum().backward()
        results.append((probs.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    probs, routing_map, num_dropped = cap_active_experts(*relu_routing(logits), cap)
    assert torch.equal(routing_map, probs > 0) and probs.dtype == dtype
    assert (routing_map.sum(1) <= cap).all()
    assert num_dropped == (logits > 0).sum() - routing_map.sum()


def test_a_cap_of_all_experts_changes_nothing():
    probs, routing_map, num_dropped = cap_active_experts(PROBS, PROBS > 0, 4)
    assert torch.equal(probs, PROBS) and torch.equal(routing_map, PROBS > 0) and num_dropped == 0


@pytest.mark.parametrize(
    ("padding", "expected"), [([], 3), ([0], 1), ([3], 2), ([1, 2], 3), ([0, 1, 2, 3], 0)]
)
def test_padding_is_capped_and_not_counted(padding, expected):
    mask = torch.zeros(4, dtype=torch.bool)
    mask[padding] = True
    probs, routing_map, num_dropped = cap_active_experts(PROBS, PROBS > 0, 2, mask)
    whole = cap_active_experts(PROBS, PROBS > 0, 2)
    assert torch.equal(probs, whole[0]) and torch.equal(routing_map, whole[1])
    assert num_dropped.item() == expected


def test_its_arguments_are_left_as_they_were():
    gates, routing_map = PROBS.clone(), PROBS > 0
    cap_active_experts(gates, routing_map, 1)
    assert torch.equal(gates, PROBS) and torch.equal(routing_map, PROBS > 0)


@pytest.mark.parametrize("cap", [0, -1, 5])
def test_a_cap_that_is_none_is_refused(cap):
    with pytest.raises(ValueError, match=f"cap must be between 1 and num_experts=4, got {cap}"):
        cap_active_experts(PROBS, PROBS > 0, cap)


def test_the_host_reads_nothing(host_reads):
    mask = torch.zeros(4, dtype=torch.bool)
    with host_reads:
        cap_active_experts(PROBS, PROBS > 0, 2, mask)
    assert host_reads.names == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 2),  # C
        (1, 2),  # 2 + 6 * 1/10 = 2.6
        (2, 3),  # 2 + 6 * 2/10 = 3.2
        (5, 5),  # 2 + 6 * 5/10, exactly
        (9, 7),  # 2 + 6 * 9/10 = 7.4
        (10, None),
        (11, None),
        (10**9, None),
    ],
)
def test_the_cap_rises_evenly_from_c_to_all_experts(step, expected):
    assert cap_at_step(2, 8, 10, step) == expected


def test_one_step_is_capped_by_c_alone():
    assert [cap_at_step(3, 8, 1, step) for step in range(3)] == [3, None, None]


def test_many_steps_take_every_value_once_and_never_all_experts():
    caps = [cap_at_step(1, 64, 1000, step) for step in range(1000)]
    assert caps == sorted(caps) and sorted(set(caps)) == list(range(1, 64))
