"""Sums of routing decisions against a case made by hand and a loop over tokens."""

import dataclasses

import numpy as np
import pytest
import torch

from megatron.remoe.recording.counters import RoutingCounters

META = {"domain_names": ["books", "code"]}


def test_three_tokens_by_hand():
    """Token 5 of books has no expert; token 1 of code expert 0, then both."""
    counters = RoutingCounters(1, 2, num_domains=3, vocab_size=6, num_followed=2, device="cpu")
    probs = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
    token_ids, domains = torch.tensor([5, 1, 1]), torch.tensor([0, 1, 1])
    counters.add(0, probs, probs > 0, token_ids, domains)
    record = counters.to_record(META)
    assert record.num_tokens == 3
    assert record.tokens_per_expert.tolist() == [[2, 1]]
    assert record.experts_per_token.tolist() == [[1, 1, 1]]
    assert record.gate_sum.tolist() == [[3.0, 3.0]]
    assert record.gate_square_sum.tolist() == [[5.0, 9.0]]
    assert record.gate_max.tolist() == [[2.0, 3.0]]
    assert record.domain_tokens.tolist() == [1, 2], "the third domain is of another phase"
    assert record.domain_tokens_per_expert.tolist() == [[[0, 0]], [[2, 1]]]
    assert record.token_count.tolist() == [0, 2, 0, 0, 0, 1]
    assert record.token_active.tolist() == [[0], [3], [0], [0], [0], [0]]
    assert record.token_expert_ids.tolist() == [0, 1]
    assert record.token_tokens_per_expert.tolist() == [[[0, 0]], [[2, 1]]]


def naive(layers, num_followed, vocab_size=16, num_domains=2, num_experts=4):
    """The same sums, token by token."""
    shape = (len(layers), num_experts)
    sums = {
        "num_tokens": np.int64(0),
        "tokens_per_expert": np.zeros(shape, np.int64),
        "experts_per_token": np.zeros((shape[0], num_experts + 1), np.int64),
        "gate_sum": np.zeros(shape),
        "gate_square_sum": np.zeros(shape),
        "gate_max": np.zeros(shape, np.float32),
        "domain_tokens": np.zeros(num_domains, np.int64),
        "domain_tokens_per_expert": np.zeros((num_domains, *shape), np.int64),
        "token_count": np.zeros(vocab_size, np.int64),
        "token_active": np.zeros((vocab_size, shape[0]), np.int64),
        "token_tokens_per_expert": np.zeros((num_followed, *shape), np.int64),
    }
    for layer, batches in enumerate(layers):
        for probs, routing_map, token_ids, domains in batches:
            for t in range(len(token_ids)):
                token, domain = int(token_ids[t]), int(domains[t])
                if layer == 0:
                    sums["num_tokens"] += 1
                    sums["token_count"][token] += 1
                    sums["domain_tokens"][domain] += 1
                experts = [e for e in range(num_experts) if routing_map[t, e]]
                sums["experts_per_token"][layer, len(experts)] += 1
                sums["token_active"][token, layer] += len(experts)
                for e in experts:
                    gate = float(probs[t, e])
                    sums["tokens_per_expert"][layer, e] += 1
                    sums["domain_tokens_per_expert"][domain, layer, e] += 1
                    sums["gate_sum"][layer, e] += gate
                    sums["gate_square_sum"][layer, e] += gate**2
                    sums["gate_max"][layer, e] = max(sums["gate_max"][layer, e], gate)
                    if token < num_followed:
                        sums["token_tokens_per_expert"][token, layer, e] += 1
    return sums


def micro_batches(dtype=torch.float32):
    """Two layers that see the same two micro-batches; some gates are there without being active."""
    generator = torch.Generator().manual_seed(3)
    tokens = [(torch.randint(16, (n,), generator=generator), torch.arange(n) % 2) for n in (20, 7)]
    layers = []
    for _ in range(2):
        batches = []
        for token_ids, domains in tokens:
            probs = torch.rand(len(token_ids), 4, generator=generator).to(dtype)
            batches.append((probs, probs > 0.6, token_ids, domains))
        layers.append(batches)
    return layers


@pytest.mark.parametrize("num_followed", [0, 5, 16], ids=["none", "some", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_equal_a_loop_over_tokens(dtype, num_followed):
    layers = micro_batches(dtype)
    counters = RoutingCounters(2, 4, 2, 16, num_followed, device="cpu")
    for layer, batches in enumerate(layers):
        for batch in batches:
            counters.add(layer, *batch)
    record = counters.to_record(META)
    for name, expected in naive(layers, num_followed).items():
        found = getattr(record, name)
        assert found.shape == expected.shape and found.dtype == expected.dtype, name
        if expected.dtype == np.float64:
            assert np.allclose(found, expected, rtol=1e-12, atol=0), name
        else:
            assert np.array_equal(found, expected), name


def test_a_record_does_not_change_with_the_counters():
    """On the CPU, where tensors and arrays share their memory."""
    counters = RoutingCounters(2, 4, 2, 16, 5, device="cpu")
    (batch, *_), _ = micro_batches()
    counters.add(0, *batch)
    record, same = counters.to_record(META), counters.to_record(META)
    counters.reset()
    for field in dataclasses.fields(record)[1:]:
        assert np.array_equal(getattr(record, field.name), getattr(same, field.name))
    assert record.num_tokens == 20 and counters.to_record(META).num_tokens == 0


def test_counting_waits_for_no_device(host_reads):
    counters = RoutingCounters(2, 4, 2, 16, 5, device="cpu")
    (batch, *_), _ = micro_batches()
    with host_reads:
        counters.add(0, *batch)
    assert host_reads.names == []


def test_memory_is_what_the_docstring_says():
    layers, experts, domains, vocabulary, followed = 3, 4, 2, 100, 10
    counters = RoutingCounters(layers, experts, domains, vocabulary, followed, device="cpu")
    buffers = (counters._all, counters._gate_sums, counters._gate_max)
    v, n, le = vocabulary, followed + 1, layers * experts
    expected = 8 * (v + v * layers + domains + domains * le + n * le + layers * (experts + 1))
    assert sum(b.numel() * b.element_size() for b in buffers) == expected + 20 * le
