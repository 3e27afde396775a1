"""The layer in bf16, judged by the error that plain PyTorch makes in the same dtype.

The truth is the reference in fp32 on the same bf16 weights and tokens. An error may be at most twice
that of the reference in bf16, over each tensor: both round, in another order.
"""

import pytest
import torch

from moe_layers import (
    build_layer,
    copy_weights,
    make_config,
    make_reference,
    ragged,
    run_layer,
    run_reference,
    tokens_for_map,
)

FACTOR = 2.0  # measured: at most 1.26
T = 64


def error(results, truth, name):
    return (results[name].float() - truth[name]).norm() / truth[name].norm().clamp(min=1e-6)


@pytest.mark.parametrize("router_dtype", [None, "fp32"], ids=["bf16 router", "fp32 router"])
@pytest.mark.parametrize("dispatcher", ["allgather", "alltoall"])
@pytest.mark.parametrize("topk", [1, 2, 4])
@pytest.mark.parametrize("num_experts", [4, 8, 32])
def test_the_error_is_that_of_plain_bf16(single_rank, num_experts, topk, dispatcher, router_dtype):
    torch.manual_seed(0)
    hidden = max(32, 2 * num_experts)
    reference = make_reference(num_experts, topk, hidden).bfloat16()
    routing_map = ragged(T, num_experts)
    tokens = tokens_for_map(reference.float(), routing_map).bfloat16()
    direction = torch.randn(T, hidden).bfloat16()
    truth = run_reference(reference.float(), tokens.float(), direction.float())
    plain = run_reference(reference.bfloat16(), tokens, direction)

    config = make_config(
        num_experts,
        topk,
        hidden,
        torch.bfloat16,
        moe_token_dispatcher_type=dispatcher,
        moe_router_dtype=router_dtype,
    )
    layer = build_layer(config).bfloat16()
    copy_weights(reference, layer)
    ours = run_layer(layer, tokens, direction)

    assert torch.equal(layer.router.state.counts[:-2], routing_map.sum(0)), "the same map"
    assert layer.router.state.reg_coeff.dtype == torch.float32
    for name in truth:
        assert error(ours, truth, name) <= FACTOR * error(plain, truth, name), name


@pytest.mark.parametrize("dispatcher", ["allgather", "alltoall"])
def test_a_gate_that_rounds_to_zero_is_not_sent(single_rank, dispatcher):
    """A positive fp32 logit below bf16's least number: no row, no count, no NaN."""
    layer = build_layer(make_config(4, 1, 8, torch.bfloat16, moe_token_dispatcher_type=dispatcher))
    layer = layer.bfloat16()
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[0, 0] = 2e-20
    tokens = torch.full((4, 8), 1e-21, dtype=torch.bfloat16)  # logit 2e-41, rounds to 0
    results = run_layer(layer, tokens, torch.ones_like(tokens))
    assert layer.router.state.counts.tolist() == [0, 0, 0, 0, 4, 4]
    assert all(gradient.isfinite().all() for gradient in results.values())
