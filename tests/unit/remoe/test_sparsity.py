"""Integer counters, summed before they are divided."""

import pytest
import torch

from remoe import routing_counts, sparsity, target_sparsity


def test_ratios_are_taken_of_sums_not_averaged():
    """A full micro-batch of one token beside seven empty tokens: 4 of 32 pairs."""
    short = routing_counts(torch.ones(1, 4, dtype=torch.bool))
    long = routing_counts(torch.zeros(7, 4, dtype=torch.bool))
    total = short + long
    assert sparsity(total[:4].sum(), total[4] * 4).item() == 0.875
    assert total.tolist() == [1, 1, 1, 1, 8, 7]


def test_counters_are_integers():
    for mask in (None, torch.tensor([False, True])):
        assert routing_counts(torch.ones(2, 3, dtype=torch.bool), mask).dtype == torch.int64


def test_counts_beyond_fp32_stay_exact():
    active, slots = torch.tensor(2**24 + 1), torch.tensor(2**26)
    assert sparsity(active, slots).item() == 1 - (2**24 + 1) / 2**26
    assert sparsity(active, slots) != sparsity(active - 1, slots)


@pytest.mark.parametrize(
    ("routing_map", "expected"),
    [
        (torch.zeros(0, 3), [0, 0, 0, 0, 0]),  # no token
        (torch.zeros(1, 3), [0, 0, 0, 1, 1]),  # one token, no expert
        (torch.ones(1, 3), [1, 1, 1, 1, 0]),  # one token, all experts
        (torch.eye(3), [1, 1, 1, 3, 0]),  # one each
        (torch.ones(500, 3), [500, 500, 500, 500, 0]),  # more than a byte holds
    ],
    ids=["no token", "no expert", "all experts", "one each", "many"],
)
def test_every_pair_is_counted_once(routing_map, expected):
    assert routing_counts(routing_map.bool()).tolist() == expected


@pytest.mark.parametrize(
    "padding",
    [[], [0], [4], [0, 2, 4], [0, 1, 2, 3, 4]],
    ids=["none", "first", "last", "several", "all"],
)
def test_padding_counts_for_nothing(padding):
    """True = padding: the same counts as if those rows had never been there."""
    routing_map = torch.rand(5, 4) > 0.5
    routing_map[1] = False  # a valid token without an expert
    mask = torch.zeros(5, dtype=torch.bool)
    mask[padding] = True
    assert torch.equal(routing_counts(routing_map, mask), routing_counts(routing_map[~mask]))


def test_counting_leaves_the_map_alone_and_reads_nothing(host_reads):
    routing_map, mask = torch.rand(6, 4) > 0.5, torch.tensor([True] + [False] * 5)
    before = routing_map.clone()
    with host_reads:
        routing_counts(routing_map, mask)
        routing_counts(routing_map)
    assert host_reads.names == []
    assert torch.equal(routing_map, before)


def test_sparsity_of_nothing_is_nan():
    assert sparsity(torch.tensor(0), torch.tensor(0)).isnan()


def test_sparsity_works_by_layer():
    value = sparsity(torch.tensor([0, 4, 1]), torch.tensor([4, 4, 4]))
    assert value.dtype == torch.float64
    assert value.tolist() == [1.0, 0.0, 0.75]


@pytest.mark.parametrize(
    ("topk", "num_experts", "expected"), [(1, 1, 0.0), (1, 8, 0.875), (4, 8, 0.5), (8, 8, 0.0)]
)
def test_target_is_one_minus_k_over_e(topk, num_experts, expected):
    assert target_sparsity(topk, num_experts) == expected


@pytest.mark.parametrize(("topk", "num_experts"), [(0, 8), (-1, 8), (9, 8), (1, 0)])
def test_an_impossible_target_is_refused_by_its_values(topk, num_experts):
    message = f"topk must be between 1 and num_experts={num_experts}, got {topk}"
    with pytest.raises(ValueError, match=message):
        target_sparsity(topk, num_experts)


@pytest.mark.parametrize("num_experts", [3, 6, 7, 10, 24, 100, 127])
@pytest.mark.parametrize("num_tokens", [1, 7, 4096, 31_457_280])
def test_an_exact_target_is_met_to_the_bit(num_experts, num_tokens):
    """k T active of E T: the controller must find S equal to 1 - k/E where E is no power of two."""
    for topk in (1, 2, 3):
        measured = sparsity(torch.tensor(topk * num_tokens), torch.tensor(num_experts * num_tokens))
        assert measured.item() == target_sparsity(topk, num_experts)
