"""What a run's method is called where `--moe-routing` did not name it."""

from argparse import Namespace

import pytest

from megatron.remoe.checkpoint.stored_run import method_of


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"moe_routing": "hash"}, "hash"),
        ({"moe_relu_routing": True, "moe_relu_load_balancing": "micro-batch"}, "relu"),
        ({"moe_relu_routing": True}, "relu"),  # of an older version
        ({"moe_relu_routing": True, "moe_relu_load_balancing": "none"}, "relu-l1"),
        ({"moe_router_load_balancing_type": "aux_loss"}, "topk"),
        ({"moe_router_load_balancing_type": ["aux_loss", "z"]}, "topk"),
        ({"moe_router_load_balancing_type": "none"}, "topk-unbalanced"),
        ({"moe_router_enable_expert_bias": True}, "topk-bias"),
        ({}, "topk"),
    ],
)
def test_a_method_is_named_by_its_options(settings, name):
    assert method_of(Namespace(**settings)) == name
