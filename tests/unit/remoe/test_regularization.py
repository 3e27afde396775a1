"""The L1 regulariser: no gradient through the load, degenerate counts, precision, parts."""

import pytest
import torch

from remoe import expert_load, l1_loss, relu_routing

# Sums are taken in fp32 whatever the gates' dtype, so only the rounding of the fp32 sum is allowed.
RTOL = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}


def test_no_gradient_flows_through_the_load():
    logits = torch.randn(16, 4, requires_grad=True)
    probs, routing_map = relu_routing(logits)
    soft_counts = torch.sigmoid(logits).sum(dim=0)  # differentiable, unlike a real count
    load = expert_load(soft_counts, topk=1, num_tokens=16)
    assert not load.requires_grad
    l1_loss(probs, load).backward()
    torch.testing.assert_close(logits.grad, routing_map * load / 16)


def test_a_load_that_carries_a_graph_is_detached():
    weight = torch.ones(4, requires_grad=True)
    probs = torch.rand(8, 4, requires_grad=True)
    l1_loss(probs, weight * 2).backward()
    assert weight.grad is None and probs.grad is not None


@pytest.mark.parametrize(
    ("counts", "topk", "num_tokens", "expected"),
    [
        ([0, 0, 0, 0], 1, 8, [0.0] * 4),  # no expert has a token
        ([0, 0, 0, 0], 1, 0, [0.0] * 4),  # no token at all: zeros, not NaN
        ([8, 8, 8, 8], 1, 8, [4.0] * 4),  # all active: E/k
        ([8, 8, 8, 8], 4, 8, [1.0] * 4),  # all active is fair where k = E
        ([2, 2, 2, 2], 1, 8, [1.0] * 4),  # a fair share
        ([8, 0, 0, 0], 1, 8, [4.0, 0.0, 0.0, 0.0]),  # one expert takes all
        ([1], 1, 1, [1.0]),  # one expert, one token
        ([7, 5, 6, 6], 2, 8, [1.75, 1.25, 1.5, 1.5]),  # more active than T*k = 16
    ],
)
def test_load_is_one_at_a_fair_share(counts, topk, num_tokens, expected):
    load = expert_load(torch.tensor(counts), topk, num_tokens)
    assert load.dtype == torch.float32
    assert load.tolist() == expected


def test_load_takes_the_number_of_tokens_from_the_device(host_reads):
    counts, num_tokens = torch.tensor([3, 1]), torch.tensor(4)
    with host_reads:
        load = expert_load(counts, 1, num_tokens)
    assert host_reads.names == []
    assert torch.equal(load, expert_load(counts, 1, 4))


@pytest.mark.parametrize("dtype", RTOL, ids=str)
def test_the_sum_over_many_tokens_is_taken_in_fp32(dtype):
    """In bf16 a running sum of ones stops at 256; the mean over 4096 tokens must still be 1."""
    probs = torch.ones(4096, 2, dtype=dtype, requires_grad=True)
    loss = l1_loss(probs, torch.tensor([1.0, 3.0]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor(4.0), rtol=RTOL[dtype], atol=0.0)
    loss.backward()
    assert probs.grad.dtype == dtype
    assert torch.equal(probs.grad, torch.tensor([1 / 4096, 3 / 4096], dtype=dtype).expand(4096, 2))


@pytest.mark.parametrize("load", [None, torch.ones(4)], ids=["without load", "with load"])
def test_zero_tokens_cost_nothing(load):
    probs = torch.zeros(0, 4, requires_grad=True)
    loss = l1_loss(probs, load)
    loss.backward()
    assert loss.item() == 0.0
    assert probs.grad.shape == (0, 4)


def test_parts_add_up_to_the_whole():
    """Two ranks that share a sequence: parts over a common T are the loss of all rows."""
    probs = torch.rand(10, 4)
    load = torch.rand(4)
    parts = l1_loss(probs[:3], load, 10) + l1_loss(probs[3:], load, torch.tensor(10))
    torch.testing.assert_close(parts, l1_loss(probs, load))


def test_denser_layers_are_penalised_more():
    """f counts absolute tokens: the same gate costs twice as much where twice as many are active."""
    sparse, dense = torch.zeros(4, 4), torch.zeros(4, 4)
    sparse[:, 0], dense[:, 0], dense[:, 1] = 1.0, 1.0, 1.0
    losses = [l1_loss(p, expert_load((p > 0).sum(0), 1, 4)) for p in (sparse, dense)]
    assert losses[1] == 2 * losses[0]
