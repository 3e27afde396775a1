"""The routers in Megatron's MoE layer against a dense loop over experts: output and every gradient."""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from megatron.training import global_vars

from megatron.remoe import micro_batch
from megatron.remoe.baselines.config import BaselineConfig
from megatron.remoe.baselines.hash_router import tell_token_ids
from moe_layers import FFN, assert_parity, by_expert, make_config
from remoe.baselines import balanced_hash_table, choose_tokens, sparsemixer_routing

LENGTH, BATCH, E, HIDDEN, VOCAB = 8, 2, 8, 32, 50
T = LENGTH * BATCH
AUX = 0.5  # large, so that a wrong loss shows in every gradient


@pytest.fixture
def args(single_rank, monkeypatch):
    """Megatron's arguments in the first step of a run."""
    from megatron.remoe.baselines import draws

    monkeypatch.setattr(draws, "get_num_microbatches", lambda: 1)
    global_vars.set_args(Namespace(seed=0, iteration=0, curr_iteration=0))
    yield global_vars.get_args()
    global_vars.set_args(None)


def make_baseline(method, topk=2, **changes):
    from dataclasses import fields

    stock = make_config(E, topk, HIDDEN)
    names = {field.name for field in fields(BaselineConfig) if field.init}
    options = {name: value for name, value in vars(stock).items() if name in names}
    for name in ("first_pipeline_num_layers", "last_pipeline_num_layers"):
        options.pop(name, None)
    return BaselineConfig(
        **{**options, "moe_routing": method, "moe_hash_vocab_size": VOCAB, **changes}
    )


def build(config, layer_number=1):
    from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
    from megatron.training.models.gpt import GPTModelConfig

    from megatron.remoe.layer_specs import baseline_layer_spec

    torch.manual_seed(0)
    block = baseline_layer_spec(GPTModelConfig(transformer=config))
    spec = block.layer_specs[0].submodules.mlp
    layer = spec(
        config=config, pg_collection=get_default_pg_collection(), is_mtp_layer=False, name="mlp"
    )
    layer.set_layer_number(layer_number)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) / 4)
    return layer


TOKEN_IDS = torch.randint(VOCAB, (BATCH, LENGTH), generator=torch.Generator().manual_seed(2))


def inputs():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(LENGTH, BATCH, HIDDEN, generator=generator) for _ in range(2)]


def run_layer(layer):
    tokens, direction = inputs()
    tokens.requires_grad_()
    with micro_batch.in_forward(micro_batch.MicroBatch(TOKEN_IDS, torch.zeros(BATCH).long())):
        output, _ = layer(tokens)
    (output * direction).sum().backward()
    results = {"output": output.detach(), "hidden_states": tokens.grad}
    if layer.router.weight is not None:
        results["router"] = layer.router.weight.grad
    for index, pair in enumerate(by_expert(layer.experts, lambda weight: weight.grad)):
        results[f"expert {index} fc1"], results[f"expert {index} fc2"] = pair
    return results


def run_naively(layer, route, loss=None):
    """All experts for all tokens, weighed by `route(logits [T, E]) -> probs, routing_map`."""
    tokens, direction = inputs()
    tokens.requires_grad_()
    flat = tokens.view(T, HIDDEN)
    weights = [
        [w.detach().clone().requires_grad_() for w in pair]
        for pair in by_expert(layer.experts, lambda weight: weight)
    ]
    router = None
    if layer.router.weight is not None:
        router = layer.router.weight.detach().clone().requires_grad_()
    logits = None if router is None else flat @ router.T
    probs, routing_map = route(logits)
    output = torch.zeros(T, HIDDEN)
    for e, (fc1, fc2) in enumerate(weights):
        gate, up = (flat @ fc1.T).split(FFN, dim=-1)
        output = output + probs[:, e : e + 1] * ((F.silu(gate) * up) @ fc2.T)
    total = (output.view_as(direction) * direction).sum()
    if loss is not None:
        total = total + loss(logits, routing_map)
    total.backward()
    results = {"output": output.detach().view_as(tokens), "hidden_states": tokens.grad}
    if router is not None:
        results["router"] = router.grad
    for index, (fc1, fc2) in enumerate(weights):
        results[f"expert {index} fc1"] = torch.zeros_like(fc1) if fc1.grad is None else fc1.grad
        results[f"expert {index} fc2"] = torch.zeros_like(fc2) if fc2.grad is None else fc2.grad
    return results


def switch_loss(topk):
    """Eq. 4 of the Switch paper: ``AUX * E * sum_e f_e P_e``."""

    def loss(logits, routing_map):
        share = routing_map.float().mean(0) / topk
        return AUX * E * (share * logits.softmax(-1).mean(0)).sum()

    return loss


BALANCED = {"moe_router_load_balancing_type": "aux_loss", "moe_aux_loss_coeff": AUX}


@pytest.mark.parametrize("dispatcher", ["alltoall", "allgather"])
@pytest.mark.parametrize("topk", [1, 2, E])
def test_expert_choice_is_the_naive_layer(args, topk, dispatcher):
    layer = build(make_baseline("expert-choice", topk, moe_token_dispatcher_type=dispatcher))

    def route(logits):
        scores = logits.softmax(-1)
        routing_map = choose_tokens(scores.detach(), topk)
        return scores * routing_map, routing_map

    assert_parity(run_layer(layer), run_naively(layer, route))


@pytest.mark.parametrize("dispatcher", ["alltoall", "allgather"])
@pytest.mark.parametrize("topk", [1, 2, E])
def test_hash_is_the_naive_layer_of_its_table(args, topk, dispatcher):
    layer = build(make_baseline("hash", topk, moe_token_dispatcher_type=dispatcher))
    table = balanced_hash_table(VOCAB, E, topk, seed=0, layer=1)

    def route(logits):
        probs = torch.zeros(T, E)
        for t, token in enumerate(TOKEN_IDS.t().flatten().tolist()):
            probs[t, table[token]] = 1 / topk
        return probs, probs > 0

    assert_parity(run_layer(layer), run_naively(layer, route))


@pytest.mark.parametrize("dispatcher", ["alltoall", "allgather"])
@pytest.mark.parametrize("topk", [1, 2, 3])
def test_sparsemixer_is_the_naive_layer_with_its_loss(args, topk, dispatcher):
    config = make_baseline("sparsemixer", topk, moe_token_dispatcher_type=dispatcher, **BALANCED)
    layer = build(config)
    kept = []
    uniform = layer.router.draws.uniform
    layer.router.draws.uniform = lambda *call: kept.append(uniform(*call)) or kept[-1]
    ours = run_layer(layer)

    def route(logits):
        return sparsemixer_routing(logits, topk, 0.1, kept[0])

    assert_parity(ours, run_naively(layer, route, switch_loss(topk)))


@pytest.mark.parametrize("dispatcher", ["alltoall", "allgather"])
@pytest.mark.parametrize(("step", "k"), [(0, 6), (9, 6), (10, 1), (500, 1)])
def test_a_warm_topk_is_the_naive_layer_with_the_k_of_the_step(args, step, k, dispatcher):
    args.curr_iteration = step
    config = make_baseline(
        "topk-warmup",
        topk=1,
        moe_topk_warmup_steps=10,
        moe_token_dispatcher_type=dispatcher,
        **BALANCED,
    )
    layer = build(config)

    def route(logits):
        scores = logits.softmax(-1)
        best = scores.topk(k).indices
        routing_map = torch.zeros(T, E, dtype=torch.bool).scatter(1, best, True)
        return scores * routing_map, routing_map

    assert_parity(run_layer(layer), run_naively(layer, route, switch_loss(k)))
    assert layer.router.topk == k


def test_evaluation_warms_up_as_the_next_step(args):
    router = build(make_baseline("topk-warmup", topk=1, moe_topk_warmup_steps=10)).router.eval()
    found = []
    for step in (-1, 8, 9):  # of the last training step
        args.curr_iteration = step
        found.append(router.now(training=False))
    assert found == [6, 6, 1]
    args.iteration = 10  # loaded, no step taken yet
    args.curr_iteration = 0
    assert router.now(training=False) == 1


def test_sparsemixer_draws_nothing_in_evaluation(args):
    layer = build(make_baseline("sparsemixer")).eval()
    tokens, _ = inputs()
    first, second = (layer.router(tokens) for _ in range(2))
    assert torch.equal(first[0], second[0])
    best = (tokens.view(T, HIDDEN) @ layer.router.weight.T).topk(2).indices
    assert first[1].gather(1, best).all()


def test_sparsemixer_samples_anew_in_each_step(args):
    layer = build(make_baseline("sparsemixer", moe_sparsemixer_jitter=10.0))
    tokens, _ = inputs()
    maps = []
    for step in (0, 1, 0):
        args.curr_iteration = step
        maps.append(layer.router(tokens)[1])
    assert torch.equal(maps[0], maps[2]) and not torch.equal(maps[0], maps[1])


@pytest.mark.parametrize("method", ["expert-choice", "sparsemixer"])
def test_padding_counts_for_no_loss_and_no_expert_takes_it(args, method):
    layer = build(make_baseline(method, **BALANCED))
    tokens, _ = inputs()
    mask = torch.zeros(LENGTH, BATCH, dtype=torch.bool)
    mask[5:] = True
    probs, routing_map = layer.router(tokens, mask)
    probs.sum().backward()
    assert layer.router.weight.grad.isfinite().all()
    if method == "expert-choice":
        assert not routing_map[mask.flatten()].any()
        assert routing_map.sum(0).tolist() == [4] * E


def test_hash_asks_for_the_token_ids(args):
    layer = build(make_baseline("hash"))
    with pytest.raises(ValueError, match="the token ids are not known here"):
        layer(inputs()[0])


def test_ids_beyond_the_vocabulary_have_the_experts_of_the_first(args):
    router = build(make_baseline("hash", topk=1)).router
    maps = []
    for token in (VOCAB, 0):
        ids = torch.full((BATCH, LENGTH), token)
        with micro_batch.in_forward(micro_batch.MicroBatch(ids, torch.zeros(BATCH).long())):
            maps.append(router(inputs()[0])[1])
    assert torch.equal(*maps)


def test_hash_has_no_parameter_that_would_get_no_gradient(args):
    assert not list(build(make_baseline("hash")).router.parameters())


def test_a_model_may_tell_its_routers_its_own_tokens():
    class Model(torch.nn.Module):
        def forward(self, input_ids, position_ids):
            return micro_batch.current().token_ids

    model = Model()
    tell_token_ids(model)
    assert torch.equal(model(TOKEN_IDS, None), TOKEN_IDS)
    assert micro_batch.current() is None


REFUSED = [
    ("expert-choice", {"topk": 9}, "--moe-router-topk 9: give a number from 1 to the 8 experts"),
    (
        "topk-warmup",
        {"moe_topk_warmup_experts": 1},
        "--moe-topk-warmup-experts 1: give a whole number from --moe-router-topk 2 to all 8",
    ),
    ("topk-warmup", {"moe_topk_warmup_experts": 9}, "--moe-topk-warmup-experts 9: give"),
    ("topk-warmup", {"moe_topk_warmup_steps": -1}, "--moe-topk-warmup-steps -1: give a number"),
    ("sparsemixer", {"moe_sparsemixer_jitter": -0.1}, "--moe-sparsemixer-jitter -0.1: give"),
    ("sparsemixer", {"moe_sparsemixer_jitter": float("nan")}, "--moe-sparsemixer-jitter nan: give"),
]


@pytest.mark.parametrize(("method", "changes", "message"), REFUSED)
def test_values_that_cannot_be_are_refused(args, method, changes, message):
    with pytest.raises(ValueError, match=message):
        make_baseline(method, **changes)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_that_is_no_32_bits_is_refused(seed):
    with pytest.raises(ValueError, match=f"--moe-hash-seed {seed}: give a whole number from 0 to"):
        make_baseline("hash", moe_hash_seed=seed)
