"""Single MoE layers in Megatron's classes: ReMoE, TopK on grouped experts, Megatron's local TopK."""

import torch
import torch.nn.functional as F
from shapes import AUX_LOSS_COEFF, Shape

KINDS = ("ReMoE", "TopK", "local TopK")


def device() -> str:
    """The CPU where there is no GPU."""
    from megatron.remoe import cpu

    return "cpu" if cpu.is_needed() else "cuda"


def join_world() -> None:
    """Be a world of one rank; before anything of Megatron is imported."""
    from megatron.remoe import cpu

    cpu.enable()
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    backend = "gloo" if device() == "cpu" else "nccl"
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    model_parallel_cuda_manual_seed(1234)


def make_layer(kind: str, shape: Shape, router_weight: torch.Tensor) -> torch.nn.Module:
    """One MoE layer as the layer spec of such a model has it, in training mode.

    Args:
        kind: One of `KINDS`.
        shape: For sizes, E and k.
        router_weight: ``[num_experts, hidden]``.
    """
    from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
    from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

    from megatron.remoe.layer_specs import remoe_layer_spec, torch_native_layer_spec

    model = GPTModelConfig(transformer=_config(kind, shape))
    if kind == "ReMoE":
        block = remoe_layer_spec(model, base=torch_native_layer_spec)
    else:
        block = (torch_native_layer_spec if kind == "TopK" else default_layer_spec)(model, None)
    build = block.layer_specs[0].submodules.mlp
    groups = get_default_pg_collection()
    layer = build(config=model.transformer, pg_collection=groups, is_mtp_layer=False, name="mlp")
    layer.set_layer_number(1)
    layer = layer.to(device()).train()
    with torch.no_grad():
        layer.router.weight.copy_(router_weight)
    return layer


def _config(kind: str, shape: Shape):
    from megatron.remoe.config import ReMoETransformerConfig

    dtype, on_cpu = torch.bfloat16 if shape.bf16 else torch.float32, device() == "cpu"
    return ReMoETransformerConfig(
        num_layers=1,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        ffn_hidden_size=shape.ffn,
        moe_ffn_hidden_size=shape.ffn,
        num_moe_experts=shape.experts,
        moe_router_topk=shape.topk,
        moe_router_load_balancing_type="none" if kind == "ReMoE" else "aux_loss",
        moe_aux_loss_coeff=0.0 if kind == "ReMoE" else AUX_LOSS_COEFF,
        moe_router_pre_softmax=True,
        moe_router_dtype="fp32",
        moe_token_dispatcher_type="alltoall",
        moe_grouped_gemm=kind != "local TopK",
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=F.silu,
        bias_activation_fusion=not on_cpu,  # compiled; Megatron's default where there is a GPU
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cpu_initialization=on_cpu,
        transformer_impl="local",
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=shape.bf16,
    )


def active_experts(layer: torch.nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """How many experts each token has, ``[num_tokens]``, by the layer's own router."""
    with torch.no_grad():
        return layer.router(hidden_states)[1].sum(1)
