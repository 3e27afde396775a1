"""Thresholds of the logits in Megatron's router: each layer has its own, in evaluation."""

import re

import pytest
import torch

from command_line import REMOE
from megatron.remoe.model_config import gpt_config_from_args
from moe_layers import build_layer, make_config
from remoe import relu_routing

E, FLAG = 8, "--moe-relu-router-thresholds"
THRESHOLDS = [0.3, -0.2]


@pytest.fixture
def logits():
    return torch.randn(6, 1, E, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer_number", [1, 2])
def test_each_layer_routes_by_its_own(single_rank, logits, layer_number):
    config = make_config(E, 2, num_layers=2, moe_relu_router_thresholds=THRESHOLDS)
    router = build_layer(config, layer_number).eval().router
    probs, routing_map = router.routing(logits)
    expected = relu_routing(logits.view(-1, E), THRESHOLDS[layer_number - 1])
    assert torch.equal(probs, expected[0]) and torch.equal(routing_map, expected[1])
    assert not torch.equal(probs, relu_routing(logits.view(-1, E))[0])


def test_without_them_it_is_plain_relu(single_rank, logits):
    router = build_layer(make_config(E, 2)).eval().router
    assert torch.equal(router.routing(logits)[0], logits.view(-1, E).relu())


def test_the_flag_reaches_the_model(validated):
    args = validated([*REMOE, FLAG, "0.5", "-0.001", "--skip-train"])
    assert gpt_config_from_args(args).transformer.moe_relu_router_thresholds == [0.5, -1e-3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("0.1", f"{FLAG}: 1 values for 2 layers: give one a layer, 0 for a layer without experts"),
        ("0.1 nan", f"{FLAG} 0.1 nan: give finite numbers"),
    ],
)
def test_values_that_no_model_can_have_are_refused(validated, values, message):
    args = validated([*REMOE, FLAG, *values.split(), "--skip-train"])
    with pytest.raises(ValueError, match=re.escape(message)):
        gpt_config_from_args(args)
