"""Which Hugging Face models become a ReMoE model, and by which configuration and names."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Family:
    """What an architecture has of its own.

    Attributes:
        qk_norm: As `ReMoEConfig.qk_norm`.
        attention_bias: Whether queries, keys and values have a bias, from the configuration.
        refused: Names of options that change what the model computes, and that ReMoE has not.
    """

    qk_norm: str | None = None
    attention_bias: Callable = lambda config: False
    refused: tuple[str, ...] = ("use_sliding_window",)


DENSE = {
    "llama": Family(refused=("attention_bias", "mlp_bias")),
    "qwen3": Family("head", refused=("attention_bias", "use_sliding_window")),
}
TOPK = {
    "mixtral": Family(refused=("sliding_window",)),
    "olmoe": Family("full", refused=("attention_bias", "clip_qkv")),
    "qwen2_moe": Family(attention_bias=lambda config: config.qkv_bias),
    "qwen3_moe": Family("head", refused=("attention_bias", "use_sliding_window")),
}


def common_settings(config, families: dict[str, Family]) -> dict:
    """The settings of `ReMoEConfig` that have nothing to do with experts.

    Args:
        config: Of the source model.
        families: `DENSE` or `TOPK`; holds its model type.

    Raises:
        ValueError: If it has an option that ReMoE has not.
    """
    family = families[config.model_type]
    for name in family.refused:
        if getattr(config, name, None):
            raise ValueError(
                f"{name}={getattr(config, name)!r} of the {config.model_type} model: ReMoE has no such"
            )
    names = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act "
        "max_position_embeddings initializer_range rms_norm_eps tie_word_embeddings attention_dropout "
        "rope_parameters pad_token_id bos_token_id eos_token_id"
    )
    settings = {name: getattr(config, name) for name in names.split()}
    return {
        **settings,
        "head_dim": getattr(config, "head_dim", None),
        "qk_norm": family.qk_norm,
        "attention_bias": bool(family.attention_bias(config)),
    }


def dense_settings(config, num_experts: int, topk: int) -> dict:
    """Settings for experts that are copies of the dense layers' gated units."""
    return {
        **common_settings(config, DENSE),
        "moe_intermediate_size": config.intermediate_size,
        "num_experts": num_experts,
        "num_experts_per_tok": topk,
    }


def topk_settings(config) -> dict:
    """Settings for the experts of a TopK model as they are."""
    layers = range(config.num_hidden_layers)
    step, dense = getattr(config, "decoder_sparse_step", 1), getattr(config, "mlp_only_layers", ())
    moe_layers = [int((i + 1) % step == 0 and i not in (dense or ())) for i in layers]
    if not any(moe_layers):
        raise ValueError(f"no layer of the {config.model_type} model has experts")
    has_shared = config.model_type == "qwen2_moe" and config.shared_expert_intermediate_size
    own_width = config.model_type in ("qwen2_moe", "qwen3_moe")
    return {
        **common_settings(config, TOPK),
        "intermediate_size": None if all(moe_layers) else config.intermediate_size,
        "moe_intermediate_size": (
            config.moe_intermediate_size if own_width else config.intermediate_size
        ),
        "moe_layers": None if all(moe_layers) else moe_layers,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "shared_expert_intermediate_size": has_shared or None,
        "shared_expert_gate": bool(has_shared),
    }


def topk_gates(config, logits: Tensor) -> Tensor:
    """The gates of a TopK model: softmax, its k largest, divided by their sum where it does so.

    Args:
        config: Of the TopK model.
        logits: ``[num_tokens, num_experts]``.

    Returns:
        Of the same shape, fp32; 0 for experts that are not chosen.
    """
    values, chosen = torch.softmax(logits.float(), dim=1).topk(config.num_experts_per_tok, dim=1)
    if config.model_type == "mixtral" or config.norm_topk_prob:
        values = values / values.sum(dim=1, keepdim=True)
    return torch.zeros_like(logits, dtype=torch.float32).scatter_(1, chosen, values)
