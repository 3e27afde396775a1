"""Which method a run used, by its stored arguments."""

import pytest

from reporting.settings import Settings, method_name

TOPK = {"num_experts": "8", "moe_router_load_balancing_type": "aux_loss"}
RELU = {"num_experts": "8", "moe_relu_routing": "True", "moe_router_load_balancing_type": "none"}


@pytest.mark.parametrize(
    "arguments, method",
    [
        ({}, None),
        ({"num_experts": "None"}, "dense"),
        (TOPK, "topk"),
        (TOPK | {"moe_router_load_balancing_type": "none"}, "topk-unbalanced"),
        (TOPK | {"moe_router_enable_expert_bias": "True"}, "topk-bias"),
        (RELU, "relu"),
        (RELU | {"moe_relu_load_balancing": "none"}, "relu-l1"),
        (TOPK | {"moe_routing": "hash"}, "hash"),
        (RELU | {"moe_routing": "None"}, "relu"),
    ],
)
def test_the_method_is_that_of_the_arguments(arguments, method):
    assert Settings(arguments).method == method


def test_a_method_has_a_name_in_words_and_an_unknown_one_stays():
    assert method_name("relu") == "ReMoE"
    assert method_name("something new") == "something new"


def test_numbers_that_are_not_known_are_none():
    settings = Settings({"global_batch_size": "512", "seed": "None"})
    assert settings.number("global_batch_size") == 512
    assert settings.number("seed") is None
    assert settings.tokens_a_step is None
