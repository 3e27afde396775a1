"""`--moe-relu-max-active-experts` in Megatron's layer: what is computed, penalised and counted."""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.training import global_vars

from megatron.remoe.step_hook import ReMoEStepHook
from moe_layers import (
    LAMBDA,
    RouterStack,
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
from remoe import expert_load, l1_loss, relu_routing
from remoe.reference import ReferenceReMoELayer

T, E, TOPK, N = 16, 8, 1, 10


@pytest.fixture
def args(single_rank):
    """Megatron's arguments in the first step of a run."""
    global_vars.set_args(Namespace(iteration=0, curr_iteration=0))
    yield global_vars.get_args()
    global_vars.set_args(None)


def make_layer(cap, seed=0, **changes):
    torch.manual_seed(seed)
    capped = {"moe_relu_max_active_experts": cap, "moe_relu_cap_steps": N}
    return build_layer(make_config(E, TOPK, **capped, **changes))


class CappedReference(ReferenceReMoELayer):
    """Token by token, the experts of its largest gates; the L1 loss of all of them."""

    cap = E

    def forward(self, hidden_states):
        gates, routing_map = relu_routing(F.linear(hidden_states, self.router))
        rows = []
        for x, gate in zip(hidden_states, gates, strict=True):
            row = x * 0
            for e in gate.topk(self.cap).indices.tolist():
                expert = F.silu(self.gate[e] @ x) * (self.up[e] @ x)
                row = row + gate[e] * (self.down[e] @ expert)
            rows.append(row)
        load = expert_load(routing_map.sum(0), self.topk, len(gates))
        return torch.stack(rows), gates, routing_map, l1_loss(gates, load)


def capped_reference(cap):
    reference = make_reference(E, TOPK)
    reference.__class__, reference.cap = CappedReference, cap
    return reference


MAPS = {"ragged": ragged(T, E), "all": torch.ones(T, E, dtype=torch.bool)}
MAPS["none"] = ~MAPS["all"]


@pytest.mark.parametrize(
    "changes",
    [
        {"moe_token_dispatcher_type": "allgather"},
        {},
        {"moe_relu_chunk_above": 1.5},
        {"moe_grouped_gemm": True},
        {"recompute_granularity": "selective", "recompute_modules": ["moe"]},
    ],
    ids=["allgather", "alltoall", "chunks", "grouped", "recompute"],
)
@pytest.mark.parametrize("cap", [1, 3, 7])
@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_output_and_gradients_are_the_references(args, routing_map, cap, changes):
    layer, reference = make_layer(cap, **changes), capped_reference(cap)
    copy_weights(reference, layer)
    tokens = tokens_for_map(reference, routing_map)
    direction = torch.randn_like(tokens)
    ours, theirs = run_layer(layer, tokens, direction), run_reference(reference, tokens, direction)
    assert_parity(ours, theirs)
    state = layer.router.state
    assert torch.equal(state.counts[:E], routing_map.sum(0)), "counted before the cap"
    assert state.num_dropped == (routing_map.sum(1) - cap).clamp(min=0).sum(), "counted once"


def test_a_dropped_gate_is_moved_by_the_regulariser_alone(args):
    layer = make_layer(2)
    logits = torch.linspace(0.1, 3.2, T * E).view(T, 1, E)[:, :, torch.randperm(E)]
    logits.requires_grad_()
    probs, routing_map = layer.router.routing(logits)
    probs.backward(torch.full_like(probs, 100.0))
    per_gate = LAMBDA * expert_load(torch.full((E,), T), TOPK, T) / T  # all gates are open
    expected = per_gate + 100.0 * routing_map
    assert routing_map.sum(1).tolist() == [2] * T
    torch.testing.assert_close(logits.grad.view(T, E), expected)


def test_padding_is_capped_and_neither_counted_nor_penalised(args):
    """True = padding."""
    layer = make_layer(2)
    mask = torch.arange(T) % 3 == 0
    logits = torch.rand(T, 1, E).requires_grad_()
    probs, routing_map = layer.router.routing(logits, mask.view(T, 1))
    assert routing_map.sum(1).tolist() == [2] * T and torch.equal(probs > 0, routing_map)
    probs.backward(torch.zeros_like(probs))
    assert torch.equal(logits.grad.view(T, E).any(1), ~mask)
    valid = (~mask).sum()
    assert layer.router.state.num_dropped == valid * (E - 2)
    assert layer.router.state.counts[:E].tolist() == [valid] * E


def test_full_recompute_counts_once(args):
    layer = make_layer(1)
    hidden_states = torch.randn(T, 1, 32, requires_grad=True)
    output = tensor_parallel.checkpoint(lambda h: layer(h)[0], False, hidden_states)
    assert layer.router.state.num_dropped == 0, "the pass without gradients"
    output.sum().backward()
    open_gates = (hidden_states.view(T, 32) @ layer.router.weight.T > 0).sum(1)
    assert layer.router.state.num_dropped == (open_gates - 1).clamp(min=0).sum() > 0


# What Megatron's arguments say, whether the model trains, and the steps before this one.
MOMENTS = {
    "the first step": ({"iteration": 0, "curr_iteration": 0}, True, 0),
    "a step": ({"iteration": 0, "curr_iteration": 4}, True, 4),
    "the first step of a resumed run": ({"iteration": 6, "curr_iteration": 6}, True, 6),
    "a later one": ({"iteration": 3, "curr_iteration": 6}, True, 6),
    "evaluation after a step": ({"iteration": 0, "curr_iteration": 4}, False, 5),
    "evaluation in a resumed run": ({"iteration": 3, "curr_iteration": 6}, False, 7),
    "evaluation alone": ({"iteration": 6}, False, 6),
    "evaluation of a run that has ended": ({"iteration": 10, "curr_iteration": 0}, False, 10),
    "evaluation after the last capped step": ({"iteration": 0, "curr_iteration": 9}, False, 10),
}


@pytest.mark.parametrize(("moment", "training", "step"), MOMENTS.values(), ids=MOMENTS)
def test_the_cap_is_that_of_the_moment(args, moment, training, step):
    layer = make_layer(2)
    global_vars.set_args(Namespace(**moment))
    layer.train(training)
    _, routing_map = layer.router.routing(torch.ones(T, 1, E))
    expected = E if step >= N else int(2 + 6 * step / 10)
    assert routing_map.sum(1).tolist() == [expected] * T


def test_both_passes_of_recompute_have_one_map(args):
    """The first runs without gradients: training, not evaluation."""
    layer = make_layer(3)
    args.curr_iteration = 4
    logits = torch.rand(T, 1, E).round(decimals=1)  # with ties
    with torch.no_grad():
        first = layer.router.routing(logits)
    second = layer.router.routing(logits)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_frozen_router_is_capped_too(args):
    layer = make_layer(2)
    layer.router.weight.requires_grad_(False)
    assert layer.router.routing(torch.ones(T, 1, E))[1].sum() == 2 * T
    assert layer.router.state.num_dropped == 0


def test_after_the_last_step_it_is_the_uncapped_router(args):
    args.curr_iteration = N
    plain = build_layer(make_config(E, TOPK)).router
    logits = torch.randn(T, 1, E)
    ours, theirs = make_layer(2).router.routing(logits), plain.routing(logits)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert plain.cap is None


def test_the_host_reads_nothing(args, host_reads):
    layer, hidden_states = make_layer(2), torch.randn(T, 1, 32)
    with host_reads:
        layer.router(hidden_states)[0].sum().backward()
    assert host_reads.names == []


def test_sparsity_and_lambda_are_those_without_a_cap(args):
    results = []
    for cap in (None, 2):
        config = make_config(
            E, 2, num_layers=2, moe_relu_max_active_experts=cap, moe_relu_cap_steps=cap and N
        )
        model = RouterStack(config)
        hook = ReMoEStepHook([model], config, finalize=lambda *args: None)
        model([8, 3, 1, 0])
        hook([model])
        results.append((hook.stats, hook._pending))
    (plain, expected), (capped, coeff) = results
    assert torch.equal(plain.sparsity, capped.sparsity) and torch.equal(coeff, expected)
    assert plain.num_dropped.tolist() == [0, 0] and capped.num_dropped.tolist() == [7, 7]
    assert capped.scalars()["moe_relu_dropped_fraction"] == 7 / 12
    assert "moe_relu_dropped_fraction" not in plain.scalars()
    assert all(layer.router.state.num_dropped == 0 for layer in model.layers), "counted anew"
