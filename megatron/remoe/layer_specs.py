"""Megatron's own layer specs with the router and the MoE layer replaced."""

from dataclasses import replace
from functools import partial

from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from megatron.remoe.moe_layer import ReMoELayer
from megatron.remoe.router import ReLURouter


def remoe_layer_spec(
    config: GPTModelConfig, vp_stage: int | None = None
) -> TransformerBlockSubmodules:
    """Layer spec of a ReMoE model, for TransformerEngine and for `local` alike.

    Takes the spec that Megatron would build for this configuration and puts `ReLURouter` and
    `ReMoELayer` where it has its own router and MoE layer; experts, attention and norms stay.

    Args:
        config: Model configuration; `config.transformer` is a `ReMoETransformerConfig`.
        vp_stage: Virtual pipeline stage, as `GPTModelConfig.transformer_layer_spec` passes it.
    """
    block = default_layer_spec(config, vp_stage)
    return replace(block, layer_specs=[_with_relu_routing(spec) for spec in block.layer_specs])


def _with_relu_routing(layer_spec: ModuleSpec) -> ModuleSpec:
    mlp = layer_spec.submodules.mlp
    if not (isinstance(mlp, partial) and mlp.func is MoELayer):
        return layer_spec  # a dense layer (--moe-layer-freq)
    submodules = replace(mlp.keywords["submodules"], router=ReLURouter)
    relu_mlp = partial(ReMoELayer, **{**mlp.keywords, "submodules": submodules})
    return replace(layer_spec, submodules=replace(layer_spec.submodules, mlp=relu_mlp))
