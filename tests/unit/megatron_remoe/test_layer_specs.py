"""Router and MoE layer go into Megatron's own spec; everything else in it stays."""

import copy
from functools import partial

import pytest
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.transformer_block import TransformerBlock
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from megatron.remoe.layer_specs import remoe_layer_spec
from megatron.remoe.moe_layer import ReMoELayer
from megatron.remoe.router import ReLURouter
from megatron.remoe.token_dispatcher import ReMoEAlltoAllTokenDispatcher
from moe_layers import LAMBDA, build_layer, make_config


def specs(**changes):
    """Ours and Megatron's, layer by layer."""
    config = GPTModelConfig(transformer=make_config(num_layers=4, **changes))
    return remoe_layer_spec(config).layer_specs, default_layer_spec(config, None).layer_specs


def is_moe(spec):
    mlp = spec.submodules.mlp
    return isinstance(mlp, partial) and mlp.func in (MoELayer, ReMoELayer)


@pytest.mark.parametrize(
    ("freq", "moe_layers"),
    [
        (1, [True] * 4),
        (2, [True, False, True, False]),
        ([0, 1, 1, 0], [False, True, True, False]),
        ([0, 0, 0, 1], [False, False, False, True]),
    ],
    ids=str,
)
def test_dense_layers_stay_dense(single_rank, freq, moe_layers):
    ours, megatrons = specs(moe_layer_freq=freq)
    assert [is_moe(spec) for spec in ours] == [is_moe(spec) for spec in megatrons] == moe_layers
    for mine, other, moe in zip(ours, megatrons, moe_layers, strict=True):
        mlp = mine.submodules.mlp
        if moe:
            assert mlp.func is ReMoELayer and mlp.keywords["submodules"].router is ReLURouter
        else:
            assert str(mine) == str(other)


def test_attention_norms_and_experts_are_megatrons(single_rank):
    ours, megatrons = specs()
    for mine, other in zip(ours, megatrons, strict=True):
        theirs = copy.copy(vars(other.submodules))
        mine_parts = copy.copy(vars(mine.submodules))
        my_mlp, their_mlp = mine_parts.pop("mlp"), theirs.pop("mlp")
        assert str(mine_parts) == str(theirs) and mine.module is other.module
        my_experts = my_mlp.keywords["submodules"].experts
        assert str(my_experts) == str(their_mlp.keywords["submodules"].experts)


def test_megatrons_spec_is_not_changed(single_rank):
    config = GPTModelConfig(transformer=make_config())
    remoe_layer_spec(config)
    mlp = default_layer_spec(config, None).layer_specs[0].submodules.mlp
    assert mlp.func is MoELayer and mlp.keywords["submodules"].router is TopKRouter


@pytest.mark.parametrize(
    ("dispatcher", "replaced"), [("allgather", False), ("alltoall", True)], ids=str
)
def test_only_the_alltoall_dispatcher_is_replaced(single_rank, dispatcher, replaced):
    layer = build_layer(make_config(moe_token_dispatcher_type=dispatcher))
    assert isinstance(layer.token_dispatcher, ReMoEAlltoAllTokenDispatcher) == replaced
    assert type(layer.router) is ReLURouter and layer.router.topk == 2


def test_a_block_built_from_it_numbers_its_routers(single_rank):
    """The step hook and the log find a router's row by its layer number."""
    config = make_config(num_layers=3, moe_layer_freq=[0, 1, 1])
    block = TransformerBlock(config, remoe_layer_spec(GPTModelConfig(transformer=config)))
    routers = [m for m in block.modules() if isinstance(m, ReLURouter)]
    assert [router.layer_number for router in routers] == [2, 3]
    assert len({id(router.state) for router in routers}) == 2
    assert all(router.state.reg_coeff.item() == LAMBDA for router in routers)
    names = [name for name in block.state_dict() if "reg_coeff" in name]
    assert names == [f"layers.{i}.mlp.router.state.reg_coeff" for i in (1, 2)]
