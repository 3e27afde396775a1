"""`ReMoELayer` against the reference: routing, regulariser, output and every gradient, one rank."""

import pytest
import torch

from moe_layers import (
    assert_parity,
    build_layer,
    copy_weights,
    make_config,
    make_reference,
    ragged,
    run_layer,
    run_reference,
    tokens_for_map,
)

DISPATCHERS = ["allgather", "alltoall"]
T = 16


MAPS = {
    "ragged": ragged(T, 8),  # rows of 0, 1, some and all experts
    "none active": torch.zeros(T, 8, dtype=torch.bool),
    "all active": torch.ones(T, 8, dtype=torch.bool),
    "one token active": torch.arange(T)[:, None].expand(T, 8) == 5,
    "one expert takes all": torch.arange(8).expand(T, 8) == 3,
    "dead experts": ragged(T, 8) & (torch.arange(8) % 7 != 0),  # the first and the last
    "one row in all": (torch.arange(T)[:, None] == 9) & (torch.arange(8) == 6),
    # T * k rows, where a dispatcher made for top-k is right by coincidence
    "two experts a token": (torch.arange(8) - torch.arange(T)[:, None]) % 8 < 2,
    "T * k rows, unevenly": torch.arange(8).expand(T, 8) < (torch.arange(T)[:, None] % 2) * 4,
}


def compare(layer, reference, routing_map):
    tokens = tokens_for_map(reference, routing_map)
    direction = torch.randn_like(tokens)
    copy_weights(reference, layer)
    ours, theirs = run_layer(layer, tokens, direction), run_reference(reference, tokens, direction)
    assert_parity(ours, theirs)
    counts = layer.router.state.counts
    assert torch.equal(counts[:-2], routing_map.sum(0))
    assert counts[-2:].tolist() == [T, (~routing_map.any(1)).sum()]
    return ours


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("topk", [1, 2, 4])
@pytest.mark.parametrize("num_experts", [4, 8, 32])
def test_it_is_the_reference_for_every_e_and_k(single_rank, num_experts, topk, dispatcher):
    torch.manual_seed(0)
    hidden = max(
        32, 2 * num_experts
    )  # more than E, so that tokens for any map are well conditioned
    config = make_config(num_experts, topk, hidden, moe_token_dispatcher_type=dispatcher)
    layer, reference = build_layer(config), make_reference(num_experts, topk, hidden)
    compare(layer, reference, ragged(T, num_experts))


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_it_is_the_reference_for_every_kind_of_map(single_rank, routing_map, dispatcher):
    torch.manual_seed(1)
    layer = build_layer(make_config(moe_token_dispatcher_type=dispatcher))
    compare(layer, make_reference(8, 2), routing_map)


@pytest.mark.parametrize("above", [0.125, 0.9, 3.0])  # the first: more chunks than 8 positions
@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_it_is_the_reference_chunk_by_chunk(single_rank, routing_map, dispatcher, above):
    torch.manual_seed(1)
    config = make_config(moe_token_dispatcher_type=dispatcher, moe_relu_chunk_above=above)
    compare(build_layer(config), make_reference(8, 2), routing_map)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_without_load_balancing_it_is_eq_9(single_rank, dispatcher):
    config = make_config(moe_token_dispatcher_type=dispatcher, moe_relu_load_balancing="none")
    compare(build_layer(config), make_reference(8, 2, load_balancing=False), ragged(T, 8))


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_experts_without_rows_get_zero_gradients(single_rank, dispatcher):
    """Overlapped gradient reduction waits for every parameter of a bucket."""
    layer = build_layer(make_config(moe_token_dispatcher_type=dispatcher))
    results = compare(layer, make_reference(8, 2), torch.zeros(T, 8, dtype=torch.bool))
    assert len(results) == 3 + 2 * 8
    for name, gradient in results.items():
        assert torch.equal(gradient, torch.zeros_like(gradient)), name


def test_the_loss_is_recorded_before_its_coefficient(single_rank):
    layer, reference = build_layer(make_config()), make_reference(8, 2)
    routing_map = ragged(T, 8)
    tokens = tokens_for_map(reference, routing_map)
    copy_weights(reference, layer)
    run_layer(layer, tokens, torch.ones_like(tokens))
    expected = reference(tokens)[3]
    torch.testing.assert_close(layer.router.state.reg_loss[0].float(), expected)
    assert layer.router.state.reg_loss[1] == 1


def test_the_order_of_rows_in_a_batch_is_kept(single_rank):
    """[s, b, h] -> [num_tokens, h] and back, for each way to cut the same tokens."""
    layer, reference = build_layer(make_config()), make_reference(8, 2)
    tokens = tokens_for_map(reference, ragged(T, 8))
    copy_weights(reference, layer)
    outputs = [run_layer(layer, tokens, tokens, batch)["output"] for batch in (1, 2, 4, 16)]
    for output in outputs[1:]:
        assert_parity({"output": output}, {"output": outputs[0]})
