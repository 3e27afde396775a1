"""Megatron's own layer specs with a few of their parts replaced."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer, MoESubmodules
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from megatron.remoe.baselines.routers import ROUTERS
from megatron.remoe.moe_layer import ReMoELayer
from megatron.remoe.router import ReLURouter
from megatron.remoe.torch_native import TorchAttention, TorchGroupedMLP, torch_norm

LayerSpec = Callable[[GPTModelConfig, int | None], TransformerBlockSubmodules]


def remoe_layer_spec(
    config: GPTModelConfig, vp_stage: int | None = None, base: LayerSpec = default_layer_spec
) -> TransformerBlockSubmodules:
    """Layer spec of a ReMoE model, for TransformerEngine and for `local` alike.

    Takes the spec that Megatron would build for this configuration and puts `ReLURouter` and
    `ReMoELayer` where it has its own router and MoE layer; experts, attention and norms stay.

    Args:
        config: Model configuration; `config.transformer` is a `ReMoETransformerConfig`.
        vp_stage: Virtual pipeline stage, as `GPTModelConfig.transformer_layer_spec` passes it.
        base: The spec to start from.
    """
    return _with_router(base(config, vp_stage), ReLURouter, ReMoELayer)


def baseline_layer_spec(
    config: GPTModelConfig, vp_stage: int | None = None, base: LayerSpec = default_layer_spec
) -> TransformerBlockSubmodules:
    """Layer spec of a model with a router of `megatron.remoe.baselines`.

    Args:
        config: Model configuration; `config.transformer` is a `BaselineConfig`.
        vp_stage: Virtual pipeline stage.
        base: The spec to start from.
    """
    return _with_router(base(config, vp_stage), *ROUTERS[config.transformer.moe_routing])


def torch_native_layer_spec(
    config: GPTModelConfig, vp_stage: int | None = None
) -> TransformerBlockSubmodules:
    """Megatron's `local` spec with norms for sequence and attention for context parallelism.

    For any GPT, dense or mixture-of-experts. Norms of layers that do not come from torch
    (Apex's), attention that ours does not do (windows, sinks) and layers with another kind of it
    (multi-latent) stay Megatron's; so do experts, unless `moe_grouped_gemm` asks for grouped ones.

    Args:
        config: Model configuration with `transformer_impl` "local".
        vp_stage: Virtual pipeline stage.
    """
    block = default_layer_spec(config, vp_stage)
    if isinstance(block, ModuleSpec):  # of one layer, as for a dense model: say all, and the norm
        num_layers = get_num_layers_to_build(config.transformer, vp_stage)
        block = TransformerBlockSubmodules([block] * num_layers, WrappedTorchNorm)
    attention = TorchAttention.is_supported(config.transformer)
    specs = [_on_torch(spec, attention) for spec in block.layer_specs]
    if config.transformer.moe_grouped_gemm:
        specs = [_with_grouped_experts(spec) for spec in specs]
    return replace(block, layer_specs=specs, layer_norm=_norm_on_torch(block.layer_norm))


def _with_router(
    block: TransformerBlockSubmodules, router: type[TopKRouter], layer: type[MoELayer]
) -> TransformerBlockSubmodules:
    def change(parts: MoESubmodules) -> MoESubmodules:
        return replace(parts, router=router)

    specs = [_with_moe_layer(spec, layer, change) for spec in block.layer_specs]
    return replace(block, layer_specs=specs)


def _with_grouped_experts(layer_spec: ModuleSpec) -> ModuleSpec:
    def group(parts: MoESubmodules) -> MoESubmodules:
        assert parts.experts.func is SequentialMLP, "Megatron's `local` spec has no others"
        return replace(parts, experts=partial(TorchGroupedMLP, **parts.experts.keywords))

    return _with_moe_layer(layer_spec, MoELayer, group)


def _with_moe_layer(
    layer_spec: ModuleSpec,
    layer: type[MoELayer],
    change: Callable[[MoESubmodules], MoESubmodules],
) -> ModuleSpec:
    mlp = layer_spec.submodules.mlp
    if not (isinstance(mlp, partial) and mlp.func is MoELayer):
        return layer_spec  # a dense layer (--moe-layer-freq)
    submodules = change(mlp.keywords["submodules"])
    mlp = partial(layer, **{**mlp.keywords, "submodules": submodules})
    return replace(layer_spec, submodules=replace(layer_spec.submodules, mlp=mlp))


def _on_torch(layer_spec: ModuleSpec, replace_attention: bool) -> ModuleSpec:
    layer = layer_spec.submodules
    parts = layer.self_attention.submodules
    if not isinstance(parts, SelfAttentionSubmodules):
        return layer_spec  # multi-latent attention
    parts = replace(
        parts,
        q_layernorm=_norm_on_torch(parts.q_layernorm),
        k_layernorm=_norm_on_torch(parts.k_layernorm),
    )
    if replace_attention and parts.core_attention is DotProductAttention:
        parts = replace(parts, core_attention=TorchAttention)
    layer = replace(
        layer,
        input_layernorm=_norm_on_torch(layer.input_layernorm),
        pre_mlp_layernorm=_norm_on_torch(layer.pre_mlp_layernorm),
        self_attention=replace(layer.self_attention, submodules=parts),
    )
    return replace(layer_spec, submodules=layer)


def _norm_on_torch(norm):
    return torch_norm if norm is WrappedTorchNorm else norm
