"""What routing cost: counted by hand, without padding, alike for every form of router."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evaluation.layers import find_moe_layers, flops_of_a_score, flops_of_every_token
from evaluation.routing import RoutingMeter, num_active
from tiny_models import SIZES, make_llama, make_mixtral, make_remoe

# Rows: sequences, columns: positions; experts that each token takes.
MAPS = torch.tensor([[[1, 1, 1], [0, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 0], [1, 1, 1]]])


class Router(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2))
        self.output = output

    def forward(self):
        return torch.zeros(1), self.output


class Model(nn.Module):
    """A model of one layer of three experts, whose routing is given."""

    def __init__(self, output):
        super().__init__()
        experts = nn.Linear(3, 5, bias=False)  # 5 weights an expert
        self.layer = nn.ModuleDict({"router": Router(output), "experts": experts})
        sizes = {"vocab_size": 10, "hidden_size": 2, "head_dim": 2}
        self.config = type("Config", (), sizes | {"num_hidden_layers": 1, "num_attention_heads": 1})


def measure(output, sequence_first=False):
    model = Model(output)
    with RoutingMeter(model, sequence_first) as meter:
        meter.begin(2, 3)
        model.layer["router"]()
        meter.keep(0, 2)  # the last position of the first row is padding
        meter.keep(1, 3)
    return meter.summary()


def test_active_experts_and_tokens_without_by_hand():
    summary = measure(MAPS.flatten(0, 1).bool())
    assert summary["tokens"] == 5
    assert summary["active_experts"] == (3 + 0 + 1 + 0 + 3) / 5
    assert summary["tokens_without_expert"] == 2 / 5
    assert summary["num_experts"] == 3


def test_flops_by_hand():
    summary = measure(MAPS.flatten(0, 1).bool())
    every_token = 2 * (3 * 2 + 10 * 2)  # router and output layer
    scores = 4 * 2 * (1 + 2 + 1 + 2 + 3)
    assert summary["flops_per_token"] == every_token + (2 * 5 * 7 + scores) / 5


def test_megatrons_order_of_tokens_gives_the_same():
    batch_first = measure(MAPS.flatten(0, 1).bool())
    assert measure(MAPS.transpose(0, 1).flatten(0, 1).bool(), sequence_first=True) == batch_first


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        (torch.tensor([[True, False, True], [False, False, False]]), [2, 0]),
        (torch.tensor([[0.5, 0.0, 2.0], [0.0, 0.0, 0.1]]), [2, 1]),
        (torch.tensor([[3, 1], [0, 2]]), [2, 2]),
        (torch.tensor([[[True, False]], [[True, True]]]), [1, 2]),
    ],
    ids=["map", "gates", "indices", "map-of-batches"],
)
def test_every_form_of_routing(routing, expected):
    assert num_active(routing).tolist() == expected


def test_hooks_are_gone_afterwards():
    model = Model(MAPS.flatten(0, 1).bool())
    with RoutingMeter(model, False) as meter:
        assert meter.summary() is None
    assert not model.layer["router"]._forward_hooks


@torch.no_grad()
def test_a_remoe_model_is_counted_as_its_router_logits_say():
    model, ids = make_remoe(), torch.randint(300, (2, 7))
    with RoutingMeter(model, False) as meter:
        meter.begin(2, 7)
        logits = model(ids, output_router_logits=True).router_logits
        meter.keep(0, 7)
        meter.keep(1, 4)
    kept = [(layer > 0).view(2, 7, 4) for layer in logits]
    kept = torch.stack([torch.cat((layer[0], layer[1, :4])) for layer in kept])
    assert meter.summary()["active_experts"] == pytest.approx(kept.sum(-1).double().mean().item())
    assert 0 < kept.sum() < kept.numel()


@torch.no_grad()
def test_a_topk_model_has_its_k():
    model = make_mixtral()
    with RoutingMeter(model, False) as meter:
        meter.begin(1, 5)
        model(torch.arange(5)[None])
        meter.keep(0, 5)
    assert meter.summary()["active_experts"] == 2
    assert meter.summary()["tokens_without_expert"] == 0


def test_a_dense_model_has_no_routing():
    model = make_llama()
    assert find_moe_layers(model) == []
    meter = RoutingMeter(model, False)
    meter.keep(0, 3)
    assert set(meter.summary()) == {"tokens", "flops_per_token"}


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_flops_of_a_dense_model_are_those_that_torch_counts(tied):
    model, length = make_llama(tie_word_embeddings=tied), 6
    model.config._attn_implementation = "eager"
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(length)[None])
    whole = length * length  # torch counts the scores of later tokens, too
    rotary = SIZES["hidden_size"] // SIZES["num_attention_heads"] // 2 * length * 2
    expected = length * flops_of_every_token(model, []) + whole * flops_of_a_score(model)
    assert counter.get_total_flops() in (expected, expected + rotary)


@torch.no_grad()
def test_flops_of_an_expert_are_those_of_its_matrices():
    (layer, _) = find_moe_layers(make_mixtral())
    assert layer.num_experts == 4
    assert layer.flops_per_expert == 2 * 3 * 16 * 24


def test_a_router_without_a_weight_says_how_many_experts_it_has():
    """As hash routing's, which learns nothing."""
    router = nn.Module()
    router.weight, router.num_experts = None, 4
    layer = nn.Module()
    layer.router, layer.experts = router, nn.ModuleList(nn.Linear(3, 5) for _ in range(4))
    (found,) = find_moe_layers(layer)
    assert (found.num_experts, found.flops_per_expert) == (4, 2 * 3 * 5)
