"""Dispatchers for any number of active experts: sizes that are data, and DeepEP's slots."""

from types import SimpleNamespace

import pytest
import torch
from megatron.core.transformer.moe import moe_utils, token_dispatcher
from megatron.core.transformer.moe.token_dispatcher import (
    MoEAlltoAllTokenDispatcher,
    _DeepepManager,
    _HybridEPManager,
)

from megatron.remoe.token_dispatcher import widen_deepep
from moe_layers import build_layer, make_config, ragged
from remoe.kernels.permute import permute, unpermute

T, E = 12, 8
MAPS = {
    "ragged": ragged(T, E),
    "none active": torch.zeros(T, E, dtype=torch.bool),
    "all active": torch.ones(T, E, dtype=torch.bool),
    "k on average": torch.arange(E).expand(T, E) < torch.arange(T)[:, None] % 2 * 4,
}


@pytest.fixture
def dispatcher(single_rank):
    return build_layer(make_config(E, 2)).token_dispatcher


@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_alltoall_sends_as_many_rows_as_there_are_active_pairs(dispatcher, routing_map):
    hidden_states, probs = torch.randn(T, 1, 4), torch.rand(T, E) * routing_map
    before = routing_map.clone()
    rows, gates = dispatcher.dispatch_preprocess(hidden_states, routing_map, probs)
    assert dispatcher.num_out_tokens == routing_map.sum()
    assert rows.shape == (routing_map.sum(), 4)
    # rows are sorted by expert, then by token
    tokens = routing_map.T.nonzero()[:, 1]
    assert torch.equal(rows, hidden_states[tokens, 0])
    assert torch.equal(gates, probs.T[routing_map.T])
    assert torch.equal(routing_map, before)


@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_rows_are_those_of_megatrons_own_permutation(routing_map):
    """Checkpoints, other ranks and the second permutation count on its order."""
    hidden_states, probs = torch.randn(T, 4), torch.rand(T, E) * routing_map
    num_rows = int(routing_map.sum())
    rows, gates, ids = permute(hidden_states, probs, routing_map, num_rows)
    theirs = moe_utils.permute(hidden_states, routing_map, probs=probs, num_out_tokens=num_rows)
    for ours, other in zip((rows, gates, ids.tokens), theirs[:3], strict=True):
        assert torch.equal(ours, other)
    assert torch.equal(unpermute(rows, ids), moe_utils.unpermute(rows, ids.tokens, (T, 4)))


def test_rows_are_not_sorted_again_where_one_rank_has_all_experts(dispatcher):
    rows, gates = dispatcher.dispatch_preprocess(
        torch.randn(T, 1, 4), MAPS["ragged"], torch.rand(T, E) * MAPS["ragged"]
    )
    dispatched, tokens_per_expert, probs = dispatcher.dispatch_postprocess(rows, gates)
    assert dispatched is rows and probs is gates and dispatcher.combine_preprocess(rows) is rows
    assert torch.equal(tokens_per_expert, MAPS["ragged"].sum(0))


def test_alltoall_waits_for_its_sizes_before_the_first_permutation(dispatcher):
    """On a GPU the number of rows must have reached the host by then; Megatron waits later."""
    dispatcher.preprocess(ragged(T, E))
    assert dispatcher.cuda_sync_point == "before_permutation_1"


def test_megatrons_own_counts_tokens_times_k(dispatcher):
    """Why the class is there; if Megatron ever counts the map itself, it can go."""
    routing_map = ragged(T, E)
    MoEAlltoAllTokenDispatcher.preprocess(dispatcher, routing_map)
    assert dispatcher.num_out_tokens == T * 2 != routing_map.sum()


def deepep(num_experts, topk, tp_size=1):
    """A dispatcher with DeepEP's manager, as far as it works without DeepEP."""
    manager = object.__new__(_DeepepManager)
    manager.num_experts, manager.router_topk = tp_size * num_experts, tp_size * topk
    manager.capacity_factor = None
    return SimpleNamespace(_comm_manager=manager)


@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_deepep_carries_every_active_pair_and_no_other(routing_map):
    dispatcher = deepep(E, topk=1)
    widen_deepep(dispatcher, E, tp_size=1)
    probs = (torch.rand(T, E) + 0.1) * routing_map
    manager = dispatcher._comm_manager
    manager.setup_metadata(routing_map, probs)
    carried = torch.zeros(T, E)
    for token, (experts, gates) in enumerate(
        zip(manager.token_indices, manager.token_probs, strict=True)
    ):
        kept = experts >= 0
        carried[token, experts[kept]] = gates[kept]
        assert kept.sum() == routing_map[token].sum()
    assert torch.equal(carried, probs)


@pytest.mark.parametrize(("num_experts", "tp_size"), [(32, 1), (16, 2), (8, 4), (1, 1)])
def test_deepep_has_slots_for_all_experts_of_a_token(num_experts, tp_size):
    dispatcher = deepep(num_experts, 1, tp_size)
    widen_deepep(dispatcher, num_experts, tp_size)
    assert dispatcher._comm_manager.router_topk == num_experts * tp_size


@pytest.mark.parametrize(("num_experts", "tp_size"), [(33, 1), (64, 1), (16, 4)])
def test_more_slots_than_deepeps_kernels_take_are_refused(num_experts, tp_size):
    with pytest.raises(ValueError, match=f"at most 32 .* may use {num_experts * tp_size}"):
        widen_deepep(deepep(num_experts, 1, tp_size), num_experts, tp_size)


@pytest.mark.parametrize("padded", [False, True], ids=["as it is", "padded to its neighbours"])
@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_hybridep_is_given_the_whole_map_and_no_budget(
    single_rank, monkeypatch, routing_map, padded
):
    """It takes a map of any number of experts, and counts its rows itself where it has no budget."""
    monkeypatch.setattr(token_dispatcher, "hybrid_ep_dispatch", object())  # not installed
    config = make_config(E, 2, moe_hybridep_pad_uneven_dispatch_inputs=padded)
    manager = _HybridEPManager(torch.distributed.group.WORLD, E, E, config)
    probs = (torch.rand(T, E) + 0.1) * routing_map
    manager.setup_metadata(routing_map, probs)
    assert torch.equal(manager.routing_map[:T], routing_map)
    assert torch.equal(manager.token_probs[:T], probs)
    assert not manager.routing_map[T:].any(), "rows of padding go to no expert"
    assert (len(manager.routing_map) > T) == padded
    assert manager.num_permuted_tokens is None and manager.capacity is None


def test_a_budget_would_drop_what_is_above_it(single_rank, monkeypatch):
    """Why --moe-expert-rank-capacity-factor is refused: k rows a token, and half of all are active."""
    monkeypatch.setattr(token_dispatcher, "hybrid_ep_dispatch", object())
    monkeypatch.setattr(token_dispatcher, "get_align_size_for_quantization", lambda config: 1)
    config = make_config(E, 1)
    config.moe_expert_rank_capacity_factor = 1.5
    manager = _HybridEPManager(torch.distributed.group.WORLD, E, E, config)
    everything = MAPS["all active"]
    manager.setup_metadata(everything, everything.float())
    assert manager.num_permuted_tokens == T * 1.5 < everything.sum()
