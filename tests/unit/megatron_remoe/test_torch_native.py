"""Norm, attention and Adam that stand in for TransformerEngine's and Apex's."""

import copy
from functools import partial

import pytest
import torch
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.multi_latent_attention import MLASelfAttention
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_config import MLATransformerConfig
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from megatron.remoe.layer_specs import torch_native_layer_spec
from megatron.remoe.torch_native import TorchAttention, torch_norm
from megatron.remoe.torch_native.adam import adam
from moe_layers import make_config

SP = {"tensor_model_parallel_size": 2, "sequence_parallel": True}


@pytest.mark.parametrize("kind", ["RMSNorm", "LayerNorm"])
def test_the_norm_is_torchs_and_marked_for_sequence_parallelism(kind):
    plain = torch_norm(make_config(normalization=kind), 32, 1e-6)
    marked = torch_norm(make_config(normalization=kind, **SP), 32, 1e-6)
    assert type(plain) is type(marked) is getattr(torch.nn, kind)
    assert plain.eps == 1e-6 and plain.weight.shape == (32,)
    assert not any(p.sequence_parallel for p in plain.parameters())
    assert all(p.sequence_parallel for p in marked.parameters())


def test_megatrons_own_norm_would_refuse():
    """The reason for ours: delete it when this fails."""
    with pytest.raises(AssertionError, match="sequence parallel not supported"):
        WrappedTorchNorm(make_config(**SP), 32)


def test_the_spec_replaces_norms_and_attention_only(single_rank):
    config = GPTModelConfig(transformer=make_config(num_layers=2, qk_layernorm=True))
    block, stock = torch_native_layer_spec(config), default_layer_spec(config, None)
    assert block.layer_norm is torch_norm
    for ours, theirs in zip(block.layer_specs, stock.layer_specs, strict=True):
        ours, theirs = ours.submodules, theirs.submodules
        assert ours.input_layernorm is ours.pre_mlp_layernorm is torch_norm
        parts, stock_parts = ours.self_attention.submodules, theirs.self_attention.submodules
        assert parts.core_attention is TorchAttention
        assert parts.q_layernorm is parts.k_layernorm is torch_norm
        assert parts.linear_qkv is stock_parts.linear_qkv
        assert ours.mlp.func is theirs.mlp.func is MoELayer


def test_multi_latent_attention_stays_megatrons(single_rank):
    config = MLATransformerConfig(
        num_layers=1, hidden_size=32, num_attention_heads=2, transformer_impl="local"
    )
    (layer,) = torch_native_layer_spec(GPTModelConfig(transformer=config)).layer_specs
    stock = default_layer_spec(GPTModelConfig(transformer=config), None)
    assert layer.submodules.self_attention.module is MLASelfAttention
    assert layer.submodules.self_attention == stock.submodules.self_attention


def test_a_dense_model_has_them_too(single_rank):
    config = GPTModelConfig(transformer=make_config(None, num_layers=3, moe_ffn_hidden_size=None))
    block = torch_native_layer_spec(config)
    assert block.layer_norm is torch_norm and len(block.layer_specs) == 3
    assert all(layer.submodules.pre_mlp_layernorm is torch_norm for layer in block.layer_specs)


@pytest.mark.parametrize(
    "changes", [{"window_size": (8, 0)}, {"softmax_type": "learnable"}], ids=["window", "sink"]
)
def test_attention_that_ours_does_not_do_stays_megatrons(single_rank, changes):
    config = GPTModelConfig(transformer=make_config(**changes))
    (layer,) = torch_native_layer_spec(config).layer_specs
    assert layer.submodules.self_attention.submodules.core_attention is DotProductAttention


@pytest.mark.parametrize("groups", [1, 2])
def test_attention_is_megatrons_own(single_rank, groups):
    config = make_config(num_query_groups=groups, kv_channels=16)
    arguments = (config, 1, AttnMaskType.causal, "self")
    query = torch.randn(8, 3, 2, 16)
    key, value = torch.randn(2, 8, 3, groups, 16)
    mask = torch.ones(8, 8).triu(1).bool().expand(3, 1, 8, 8)
    ours = TorchAttention(*arguments)(query, key, value, None)
    theirs = DotProductAttention(*arguments)(query, key, value, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_attention_says_what_it_does_not_do(single_rank):
    attention = TorchAttention(make_config(), 1, AttnMaskType.causal, "self")
    states = torch.randn(3, 4, 1, 2, 16)
    with pytest.raises(ValueError, match="no bias and no packed sequences"):
        attention(*states, None, attention_bias=torch.zeros(1))
    with pytest.raises(ValueError, match="has no padding mask"):
        attention(*states, None, attn_mask_type=AttnMaskType.padding)


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(3, 4, generator=generator)) for _ in range(3)]


def step(optimizer, parameters, number):
    generator = torch.Generator().manual_seed(100 + number)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


OPTIONS = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize(
    ("decoupled", "torchs"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)]
)
def test_adam_is_torchs_with_its_step_in_the_groups(decoupled, torchs):
    ours, theirs = weights(), weights()
    groups = [{"params": ours[:1]}, {"params": ours[1:], "lr": 0.2}]
    optimizer = adam(groups, adam_w_mode=decoupled, **OPTIONS)
    groups = [{"params": theirs[:1]}, {"params": theirs[1:], "lr": 0.2}]
    expected = torchs(groups, fused=True, **OPTIONS)
    for number in range(1, 4):
        step(optimizer, ours, number)
        step(expected, theirs, number)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert [group["step"] for group in optimizer.param_groups] == [number] * 2
        assert all(set(s) == {"exp_avg", "exp_avg_sq"} for s in optimizer.state.values())


@pytest.mark.parametrize(
    "saved_by", [adam, partial(torch.optim.AdamW, fused=True)], ids=["ours", "torch's"]
)
def test_a_loaded_adam_goes_on_to_the_bit(saved_by):
    first, second = weights(), weights(seed=1)
    optimizer = saved_by(first, **OPTIONS)
    step(optimizer, first, 1)
    with torch.no_grad():
        for a, b in zip(first, second, strict=True):
            b.copy_(a)
    loaded = adam(second, **OPTIONS)
    saved = copy.deepcopy(optimizer.state_dict())  # it would share tensors
    for group in saved["param_groups"]:  # as an unfused Adam saves them
        group["fused"], group["foreach"] = None, True
    loaded.load_state_dict(saved)
    assert all(group["fused"] and not group["foreach"] for group in loaded.param_groups)
    assert all("step" not in state for state in loaded.state.values())
    for number in (2, 3):
        step(optimizer, first, number)
        step(loaded, second, number)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
