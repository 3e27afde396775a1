"""The once-a-step hook: what it counts, and that it costs one all-reduce and no read by the host."""

import pytest
import torch

from megatron.remoe.step_hook import ReMoEStepHook
from moe_layers import LAMBDA, RouterStack, make_config

E, TOPK, TARGET = 8, 2, 0.75  # experts, target of active ones, 1 - k/E
UP, DOWN = LAMBDA * 1.2, LAMBDA / 1.2


@pytest.fixture
def config(single_rank):
    return make_config(E, TOPK, num_layers=2)


@pytest.fixture
def model(config):
    return RouterStack(config)


@pytest.fixture
def hook(model, config):
    return ReMoEStepHook([model], config, finalize=lambda *args, **kwargs: None)


def coeffs(model):
    return [layer.router.state.reg_coeff.item() for layer in model.layers]


@pytest.mark.parametrize(
    ("micro_batches", "expected"),
    [
        ([[8, 8], [8, 8]], UP),  # all active
        ([[3, 2]], UP),  # one pair above the target
        ([[2, 2]], LAMBDA),  # exactly there
        ([[8, 0, 0, 0]], LAMBDA),  # exactly there, one token takes all
        ([[2, 1]], DOWN),  # one pair below
        ([[0, 0]], DOWN),  # nothing active
        ([[8], [0, 0, 0]], LAMBDA),  # 8 of 32 pairs; the mean of ratios would be 1/2, too dense
        ([[0], [3, 3, 3]], UP),  # 9 of 32 pairs; the mean of ratios would be 3/16, too sparse
        ([], LAMBDA),  # nothing counted
    ],
)
def test_lambda_moves_by_the_sparsity_of_all_micro_batches(model, hook, micro_batches, expected):
    for active in micro_batches:
        model(active)
    hook([model])
    assert coeffs(model) == [pytest.approx(expected, rel=1e-6)] * 2


def test_sparsity_is_that_of_all_layers_together(config):
    model = RouterStack(config)
    hook = ReMoEStepHook([model], config, finalize=lambda *args: None)
    model.layers[0].router.routing(torch.ones(3, 1, E))
    model.layers[1].router.routing(-torch.ones(3, 1, E))
    hook([model])
    assert hook.stats.sparsity.item() == 0.5
    assert hook.stats.tokens_per_expert.tolist() == [[3] * E, [0] * E]
    assert hook.stats.num_tokens.tolist() == [3, 3]


def test_dense_layers_are_not_slots(config):
    """`--moe-layer-freq 2`: only layer 2 is there; an empty row must not count as inactive pairs."""
    model = RouterStack(config, layer_numbers=(2,))
    hook = ReMoEStepHook([model], config, finalize=lambda *args: None)
    model([TOPK, TOPK])
    hook([model])
    assert hook.stats.num_tokens.tolist() == [0, 2]
    assert hook.stats.sparsity.item() == TARGET
    assert coeffs(model) == [LAMBDA]


def test_counters_start_anew_each_step(model, hook):
    model([8])
    hook([model])
    model([2])
    hook([model])
    assert hook.stats.sparsity.item() == TARGET
    assert all(layer.router.state.counts.sum() == 0 for layer in model.layers)


def test_evaluation_between_steps_is_not_counted(model, hook):
    model([2])
    model.eval()
    model([8, 8, 8])
    model.train()
    with torch.no_grad():
        model([8, 8, 8])
    hook([model])
    assert hook.stats.num_tokens.tolist() == [1, 1]
    assert coeffs(model) == [LAMBDA] * 2


def test_a_frozen_router_is_left_out(model, hook):
    model.layers[0].router.weight.requires_grad_(False)
    model.layers[0].router.routing(torch.ones(3, 1, E))
    model.layers[1].router.routing(-torch.ones(3, 1, E))
    hook([model])
    assert hook.stats.num_tokens.tolist() == [0, 3]
    assert coeffs(model) == [LAMBDA, pytest.approx(DOWN, rel=1e-6)]
    assert model.layers[0].router.state.counts.sum() == 0, "nothing piles up"


def test_all_routers_frozen_is_no_error(model, hook):
    for layer in model.layers:
        layer.router.weight.requires_grad_(False)
    model([8])
    hook([model])
    assert coeffs(model) == [LAMBDA] * 2


def test_gradients_are_finalized_first_with_what_the_schedule_passed(model, config):
    calls = []
    hook = ReMoEStepHook([model], config, finalize=lambda *a, **k: calls.append((a, k, hook.stats)))
    num_tokens = torch.tensor(3)
    hook([model], num_tokens, pg_collection="groups", force_all_reduce=True)
    expected = {"pg_collection": "groups", "force_all_reduce": True}
    assert calls == [(([model], num_tokens), expected, None)]


def test_one_all_reduce_over_the_world_and_no_read_by_the_host(
    model, hook, host_reads, monkeypatch
):
    all_reduce, calls = torch.distributed.all_reduce, []

    def counted(tensor, *args, **kwargs):
        calls.append((tensor.dtype, args, kwargs))
        return all_reduce(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.distributed, "all_reduce", counted)
    for _ in range(2):
        model([8])
        with host_reads:
            hook([model])
    # the default group; fp64 holds integers up to 2^53
    assert calls == [(torch.float64, (), {})] * 2
    assert host_reads.names == []


def test_lambda_survives_the_way_through_the_all_reduce_to_the_bit(model, hook):
    odd = torch.tensor(1.2345678e-8)
    for layer in model.layers:
        layer.router.state.reg_coeff.copy_(odd)
    hook([model])
    assert torch.equal(hook.stats.reg_coeff, odd)
    assert all(torch.equal(layer.router.state.reg_coeff, odd) for layer in model.layers)
