"""Maps summed to counts."""

import numpy as np
import pytest

from remoe.analysis.counting import record_of
from remoe.analysis.maps import RoutingMaps, pack

# Two layers, two sequences of two tokens, three experts.
MAP = np.array(
    [[[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]],
    dtype=bool,
)
META = {
    "format": 1,
    "step": 7,
    "run": "a",
    "method": "relu",
    "topk": 1,
    "num_experts": 3,
    "moe_layers": [1, 3],
    "domain_names": ["code", "prose", "none"],
    "vocab_size": 6,
}


def make(routing_map=MAP, **changes):
    fields = {
        "token_ids": np.array([[5, 2], [2, 2]], np.int32),
        "domains": np.array([0, 1], np.int32),
    }
    return RoutingMaps(META, maps=pack(routing_map), **(fields | changes))


def test_counts_by_hand():
    record = record_of(make())
    assert record.num_tokens == 4
    assert record.tokens_per_expert.tolist() == [[2, 2, 1], [0, 0, 4]]
    assert record.experts_per_token.tolist() == [[1, 2, 0, 1], [0, 4, 0, 0]]
    assert record.domain_tokens.tolist() == [2, 2, 0]
    assert record.domain_tokens_per_expert[:, 0].tolist() == [[1, 0, 0], [1, 2, 1], [0, 0, 0]]
    assert record.domain_tokens_per_expert[:, 1].tolist() == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]
    assert record.token_count.tolist() == [0, 0, 3, 0, 0, 1]
    assert record.token_active[[2, 5]].tolist() == [[4, 3], [1, 1]]
    assert (record.step, record.phase, record.domain_names[1]) == (7, "valid", "prose")


def test_the_most_frequent_ids_are_followed():
    record = record_of(make(), num_followed=1)
    assert record.token_expert_ids.tolist() == [2]
    assert record.token_tokens_per_expert.tolist() == [[[1, 2, 1], [0, 0, 3]]]


def test_gates_are_summed_over_active_pairs():
    gates = MAP * np.array([0.5, 1.0, 2.0], np.float16)
    record = record_of(make(gates=gates))
    assert record.gate_sum.tolist() == [[1, 2, 2], [0, 0, 8]]
    assert record.gate_square_sum.tolist() == [[0.5, 2, 4], [0, 0, 16]]
    assert record.gate_max.tolist() == [[0.5, 1, 2], [0, 0, 2]]
    assert np.isnan(record_of(make()).gate_sum).all()


def test_all_active_and_none_active():
    everything = record_of(make(np.ones_like(MAP)))
    assert everything.active_experts.tolist() == [3, 3]
    nothing = record_of(make(np.zeros_like(MAP)))
    assert nothing.tokens_without_expert.tolist() == [1, 1]
    assert nothing.dead_experts.tolist() == [3, 3]


def test_counts_are_those_of_a_loop():
    generator = np.random.default_rng(0)
    routing_map = generator.random((2, 60, 3)) < 0.4
    ids = generator.integers(0, 6, (6, 10)).astype(np.int32)
    domains = np.array([0, 2, 1, 0, 0, 2], np.int32)
    record = record_of(make(routing_map, token_ids=ids, domains=domains))
    expected = np.zeros((6, 2, 3), int)
    for layer in range(2):
        for t, token in enumerate(ids.ravel()):
            expected[token, layer] += routing_map[layer, t]
    assert np.array_equal(expected[record.token_expert_ids], record.token_tokens_per_expert)
    assert np.array_equal(record.token_active, expected.sum(2))
    assert record.domain_tokens_per_expert.sum(0) == pytest.approx(record.tokens_per_expert)
