"""Shared experts beside ReLU routing: added once, also where no routed expert is active."""

import pytest
import torch
import torch.nn.functional as F

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

T = 16


def shared_output(layer, tokens):
    weights = layer.shared_experts.linear_fc1.weight, layer.shared_experts.linear_fc2.weight
    gate, up = F.linear(tokens, weights[0]).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, weights[1])


@pytest.mark.parametrize(
    ("dispatcher", "overlap"), [("allgather", False), ("alltoall", False), ("alltoall", True)]
)
@pytest.mark.parametrize(
    "routing_map",
    [ragged(T, 8), torch.zeros(T, 8, dtype=torch.bool), torch.ones(T, 8, dtype=torch.bool)],
    ids=["ragged", "none active", "all active"],
)
def test_shared_experts_are_added_once(single_rank, routing_map, dispatcher, overlap):
    torch.manual_seed(0)
    config = make_config(
        moe_token_dispatcher_type=dispatcher,
        moe_shared_expert_intermediate_size=40,
        moe_shared_expert_overlap=overlap,
    )
    layer, reference = build_layer(config), make_reference(8, 2)
    copy_weights(reference, layer)
    tokens = tokens_for_map(reference, routing_map)
    direction = torch.randn_like(tokens)
    ours, theirs = run_layer(layer, tokens, direction), run_reference(reference, tokens, direction)

    leaf = tokens.clone().requires_grad_()
    extra = shared_output(layer, leaf)
    inputs = (leaf, layer.shared_experts.linear_fc1.weight, layer.shared_experts.linear_fc2.weight)
    gradients = torch.autograd.grad((extra * direction).sum(), inputs)
    theirs["output"] = theirs["output"] + extra.detach()
    theirs["hidden_states"] = theirs["hidden_states"] + gradients[0]
    for name, weight, gradient in zip("12", inputs[1:], gradients[1:], strict=True):
        ours[f"shared fc{name}"], theirs[f"shared fc{name}"] = weight.grad, gradient
    assert_parity(ours, theirs)


def test_the_replaced_dispatcher_owns_the_overlap(single_rank):
    """Megatron wires shared experts to the dispatcher that it built itself."""
    config = make_config(moe_shared_expert_intermediate_size=40, moe_shared_expert_overlap=True)
    layer = build_layer(config)
    assert layer.token_dispatcher.shared_experts is layer.shared_experts
