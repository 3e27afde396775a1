"""The router in Megatron's slot: what it counts, when, and what padding does."""

import pytest
import torch
from megatron.core import tensor_parallel
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler

from moe_layers import LAMBDA, assert_parity, build_layer, make_config, run_layer
from remoe import expert_load, l1_loss
from remoe.kernels.relu_router import relu_router_reference

T, E = 16, 8


@pytest.fixture
def layer(single_rank):
    return make_layer()


def make_layer(**changes):
    torch.manual_seed(0)
    return build_layer(make_config(E, 2, **changes))


def tokens(num_tokens=T, seed=0):
    return torch.randn(num_tokens, 32, generator=torch.Generator().manual_seed(seed))


def map_of(layer, x):
    return x @ layer.router.weight.T > 0


def test_micro_batches_add_up_in_integers(layer):
    first, second = tokens(16, seed=1), tokens(6, seed=2)
    for x in (first, second):
        layer(x.view(-1, 2, 32))
    routing_map = map_of(layer, torch.cat([first, second]))
    counts = layer.router.state.counts
    assert counts.dtype == torch.int64
    assert torch.equal(counts[:E], routing_map.sum(0))
    assert counts[E:].tolist() == [22, (~routing_map.any(1)).sum()]
    assert layer.router.state.reg_loss[1] == 2


@pytest.mark.parametrize("dispatcher", ["allgather", "alltoall"])
def test_recompute_of_moe_layers_changes_neither_counts_nor_gradients(single_rank, dispatcher):
    results, counts = [], []
    recompute = {"recompute_granularity": "selective", "recompute_modules": ["moe"]}
    for changes in ({}, recompute):
        layer = make_layer(moe_token_dispatcher_type=dispatcher, **changes)
        results.append(run_layer(layer, tokens(), tokens(seed=3)))
        counts.append(layer.router.state.counts)
    assert_parity(results[1], results[0])
    assert torch.equal(counts[0], counts[1])


def test_recompute_of_the_whole_layer_counts_once(layer):
    """As `--recompute-granularity full` runs it."""
    x = tokens().view(-1, 2, 32).requires_grad_()
    output = tensor_parallel.checkpoint(lambda h: layer(h)[0], False, x)
    assert layer.router.state.counts.sum() == 0, "the pass without gradients"
    output.sum().backward()
    assert layer.router.state.counts[E] == T


@pytest.mark.parametrize("mode", ["eval", "no_grad", "eval and no_grad"])
def test_evaluation_is_routed_alike_and_not_counted(layer, mode):
    x = tokens().view(-1, 2, 32)
    trained = layer(x)[0]
    layer.router.state.reset()
    if "eval" in mode:
        layer.eval()
    with torch.set_grad_enabled("no_grad" not in mode):
        output = layer(x)[0]
    assert torch.equal(output, trained)
    assert layer.router.state.counts.sum() == 0 and layer.router.state.reg_loss.sum() == 0


def test_a_frozen_router_is_neither_counted_nor_penalised(layer):
    layer.router.weight.requires_grad_(False)
    x = tokens().view(-1, 2, 32).requires_grad_()
    probs, _ = layer.router(x)
    probs.backward(torch.zeros_like(probs))
    assert x.grad.abs().sum() == 0, "the loss could only push the layers below"
    assert layer.router.state.counts.sum() == 0


def test_evaluation_attaches_no_loss(layer):
    layer.eval()
    probs, _ = layer.router(tokens().view(-1, 2, 32))
    probs.backward(torch.zeros_like(probs))
    assert layer.router.weight.grad.abs().sum() == 0


@pytest.mark.parametrize("load_balancing", ["micro-batch", "none"])
@pytest.mark.parametrize(
    "padding",
    [[], [0], [3, 4, 15], list(range(1, T)), list(range(T))],
    ids=["none", "first", "several", "all but one", "all"],
)
def test_padding_is_routed_but_neither_counted_nor_penalised(single_rank, padding, load_balancing):
    """True = padding. The loss is that of a batch of the valid tokens alone."""
    layer = make_layer(moe_relu_load_balancing=load_balancing)
    x = tokens()
    mask = torch.zeros(T, dtype=torch.bool)
    mask[padding] = True
    probs, routing_map = layer.router(x.view(-1, 2, 32), mask.view(-1, 2))
    assert torch.equal(routing_map, map_of(layer, x)), "padding is sent to its experts"
    probs.backward(torch.zeros_like(probs))

    weight = layer.router.weight.detach().clone().requires_grad_()
    valid = (x @ weight.T).relu()[~mask]
    counts = (valid > 0).sum(0)
    load = expert_load(counts, 2, len(valid)) if load_balancing == "micro-batch" else None
    loss = l1_loss(valid, load)
    (LAMBDA * loss).backward()
    assert_parity({"router": layer.router.weight.grad}, {"router": weight.grad})
    assert layer.router.state.counts[: E + 1].tolist() == [*counts.tolist(), len(valid)]
    torch.testing.assert_close(layer.router.state.reg_loss[0].float(), loss.detach())


@pytest.mark.parametrize("padding", [[], [0, 5]], ids=["no padding", "padding"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"moe_relu_load_balancing": "none"},
        {"moe_z_loss_coeff": 1e-3},
        {"calculate_per_token_loss": True},
        {"moe_router_dtype": "fp64"},
        {"dtype": torch.bfloat16},
        {"dtype": torch.bfloat16, "moe_router_dtype": "fp32"},
    ],
    ids=str,
)
def test_the_fused_router_trains_as_its_reference_does(single_rank, monkeypatch, changes, padding):
    results = []
    for op in (None, relu_router_reference):
        if op is not None:
            monkeypatch.setattr("megatron.remoe.router.relu_router", op)
        router = make_layer(**changes).router.to(changes.get("dtype", torch.float32))
        x = tokens().view(-1, 2, 32).to(router.weight.dtype).requires_grad_()
        mask = torch.zeros(T, dtype=torch.bool)
        mask[padding] = True
        probs, routing_map = router(x, mask.view(-1, 2) if padding else None)
        probs.backward(tokens(seed=3)[:, :E].to(probs.dtype))
        assert x.grad.abs().sum() > 0 and router.weight.grad.abs().sum() > 0
        results.append(
            (
                probs,
                routing_map,
                router.state.counts,
                router.state.reg_loss,
                x.grad,
                router.weight.grad,
            )
        )
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)
    assert torch.equal(results[0][1], results[1][1]) and torch.equal(results[0][2], results[1][2])


def test_the_layer_takes_a_batch_first_padding_mask(layer):
    """Megatron's layers take [b, s]; the router flattens [s, b]."""
    x, mask = tokens(), torch.zeros(2, T // 2, dtype=torch.bool)
    mask[1, 3:] = True
    layer(x.view(-1, 2, 32), padding_mask=mask)
    valid = ~mask.T.reshape(-1)
    assert torch.equal(layer.router.state.counts[:E], map_of(layer, x)[valid].sum(0))


def test_the_hosts_routing_path_reads_nothing(layer, host_reads):
    x, mask = tokens().view(-1, 2, 32), torch.zeros(T // 2, 2, dtype=torch.bool)
    with host_reads:
        for padding_mask in (None, mask):
            probs, _ = layer.router(x, padding_mask)
            probs.sum().backward()
    assert host_reads.names == []


def test_the_loss_is_scaled_like_the_main_loss(layer):
    """Loss scaling and averaging over micro-batches reach lambda * L_reg through Megatron's scaler."""
    gradients = []
    for scale in (1.0, 0.25):
        layer.zero_grad()
        MoEAuxLossAutoScaler.set_loss_scale(torch.tensor(scale))
        probs, _ = layer.router(tokens().view(-1, 2, 32))
        probs.backward(torch.zeros_like(probs))
        gradients.append(layer.router.weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1], 0.25 * gradients[0])


def test_z_loss_goes_with_it(single_rank):
    layer = make_layer(moe_z_loss_coeff=1e-3)
    x = tokens()
    probs, _ = layer.router(x.view(-1, 2, 32))
    probs.backward(torch.zeros_like(probs))
    weight = layer.router.weight.detach().clone().requires_grad_()
    logits = x @ weight.T
    load = expert_load((logits > 0).sum(0), 2, T)
    z_loss = 1e-3 * torch.logsumexp(logits, dim=-1).square().mean()
    (LAMBDA * l1_loss(logits.relu(), load) + z_loss).backward()
    assert_parity({"router": layer.router.weight.grad}, {"router": weight.grad})


def test_input_jitter_changes_the_gates_and_not_the_experts_input(single_rank):
    layer = make_layer(moe_input_jitter_eps=0.1)
    plain = make_layer()
    x = tokens().view(-1, 2, 32)
    jittered, clean = layer.router(x)[0], plain.router(x)[0]
    assert not torch.equal(jittered, clean)
    torch.testing.assert_close(jittered, clean, rtol=0, atol=0.5)


def test_lambda_is_the_coefficient_of_this_step(layer):
    """Moving lambda between two forwards scales the gradient and nothing else."""
    gradients = []
    for coeff in (LAMBDA, 3 * LAMBDA):
        layer.zero_grad()
        layer.router.state.reg_coeff.fill_(coeff)
        probs, _ = layer.router(tokens().view(-1, 2, 32))
        probs.backward(torch.zeros_like(probs))
        gradients.append(layer.router.weight.grad.clone())
    torch.testing.assert_close(gradients[1], 3 * gradients[0])


def test_each_router_owns_its_lambda_and_shares_the_config(single_rank):
    config = make_config(E, 2, num_layers=2)
    first, second = build_layer(config, 1), build_layer(config, 2)
    first.router.state.reg_coeff.fill_(1.0)
    assert second.router.state.reg_coeff == torch.tensor(LAMBDA)
    assert config.moe_relu_l1_reg_coeff_init == LAMBDA
