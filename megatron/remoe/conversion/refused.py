"""Settings that the other form has no word for: each is refused by name, none is dropped in silence."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from megatron.remoe.checkpoint.settings import (
    OWN_FUNCTIONS,
    has_experts,
    routes_by_relu,
    routes_by_topk,
)
from megatron.remoe.conversion.architecture import ConversionError


@dataclass(frozen=True)
class Refusal:
    """One setting that cannot be expressed in the other form.

    Attributes:
        name: Of the flag, or of the entry in config.json.
        applies: Whether this model has it.
        reason: Why it cannot be converted.
    """

    name: str
    applies: Callable
    reason: str


def _set(name: str, model: Callable[[Namespace], bool] = lambda args: True) -> Callable:
    """The argument is neither None nor false nor zero, in a model that heeds it."""
    return lambda args: bool(getattr(args, name, None)) and model(args)


def _not(name: str, *values: object) -> Callable:
    """The argument is known and none of these."""
    return lambda args: getattr(args, name, values[0]) not in values


def _cap_holds(args: Namespace) -> bool:
    steps = getattr(args, "moe_relu_cap_steps", None)
    return routes_by_relu(args) and bool(steps) and (getattr(args, "iteration", 0) or 0) < steps


def _warms_up(args: Namespace) -> bool:
    steps = getattr(args, "moe_topk_warmup_steps", 0)
    is_meant = has_experts(args) and getattr(args, "moe_routing", None) == "topk-warmup"
    return is_meant and (getattr(args, "iteration", 0) or 0) < steps


BIAS = "the Llama kind of decoder has no biases but those of queries, keys and values"
ROPE = "only rotary positions over the whole head, unscaled, are converted"
ATTENTION = "only plain causal softmax attention is converted"
MLP = "only SwiGLU is converted"
NORM = "only RMSNorm with a plain weight is converted"
TOPK = "stock architectures with TopK take the softmax over experts alone"
LAYERS = "layers of another kind are not converted"

# What of Megatron's has no counterpart in the Hugging Face architectures that `families` names.
OF_MEGATRON = (
    Refusal("--normalization", _not("normalization", "RMSNorm"), NORM),
    Refusal("--apply-layernorm-1p", _set("layernorm_zero_centered_gamma"), NORM),
    Refusal(
        "--apply-residual-connection-post-layernorm",
        _set("apply_residual_connection_post_layernorm"),
        "the residual is taken before the norm",
    ),
    Refusal("without --disable-bias-linear", _set("add_bias_linear"), BIAS),
    Refusal("without --swiglu", lambda args: not getattr(args, "swiglu", False), MLP),
    Refusal("--squared-relu", _set("squared_relu"), MLP),
    Refusal("--quick-geglu", _set("quick_geglu"), MLP),
    Refusal("--openai-gelu", _set("openai_gelu"), MLP),
    Refusal("--glu-linear-offset", _set("glu_linear_offset"), MLP),
    Refusal("--activation-func-clamp-value", _set("activation_func_clamp_value"), MLP),
    Refusal(
        "--moe-mlp-glu-interleave-size",
        _set("moe_mlp_glu_interleave_size"),
        "gate and up are interleaved",
    ),
    Refusal(
        "--moe-shared-expert-glu-interleave-size",
        _set("moe_shared_expert_glu_interleave_size"),
        "gate and up are interleaved",
    ),
    Refusal("--position-embedding-type", _not("position_embedding_type", "rope"), ROPE),
    Refusal("--rotary-percent", _not("rotary_percent", 1.0), ROPE),
    Refusal("--rotary-interleaved", _set("rotary_interleaved"), ROPE),
    Refusal(
        "--rotary-seq-len-interpolation-factor",
        lambda args: getattr(args, "rotary_seq_len_interpolation_factor", None) not in (None, 1),
        ROPE,
    ),
    Refusal("--use-rope-scaling", _set("use_rope_scaling"), ROPE),
    Refusal("--no-rope-freq", _set("no_rope_freq"), ROPE),
    Refusal("--multi-latent-attention", _set("multi_latent_attention"), ATTENTION),
    Refusal("--attention-output-gate", _set("attention_output_gate"), ATTENTION),
    Refusal("--qk-l2-norm", _set("qk_l2_norm"), ATTENTION),
    Refusal("--softmax-type", _not("softmax_type", "vanilla"), ATTENTION),
    Refusal("--window-size", _set("window_size"), ATTENTION),
    Refusal("--experimental-attention-variant", _set("experimental_attention_variant"), ATTENTION),
    Refusal("--linear-attention-freq", _set("linear_attention_freq"), ATTENTION),
    Refusal("--use-mup", _set("use_mup"), "multipliers of activations are not converted"),
    Refusal("--mtp-num-layers", _set("mtp_num_layers"), LAYERS),
    Refusal("--hybrid-layer-pattern", _set("hybrid_layer_pattern"), LAYERS),
    Refusal("--hybrid-override-pattern", _set("hybrid_override_pattern"), LAYERS),
    Refusal("--heterogeneous-layers-config-path", _set("heterogeneous_layers_config_path"), LAYERS),
    Refusal(
        "--heterogeneous-layers-config-encoded-json",
        _set("heterogeneous_layers_config_encoded_json"),
        LAYERS,
    ),
    Refusal("--spec", _set("spec"), "a layer spec of one's own is not converted"),
    Refusal("--moe-latent-size", _set("moe_latent_size", has_experts), LAYERS),
    Refusal(
        "--moe-apply-probs-on-input",
        _set("moe_apply_probs_on_input", has_experts),
        "gates multiply the experts' outputs",
    ),
    Refusal(
        "--moe-routing",
        lambda args: has_experts(args) and getattr(args, "moe_routing", None) in OWN_FUNCTIONS,
        "no architecture of transformers routes in this way",
    ),
    Refusal(
        "--moe-router-score-function",
        lambda args: routes_by_topk(args) and _not("moe_router_score_function", "softmax")(args),
        TOPK,
    ),
    Refusal(
        "--moe-router-topk-scaling-factor",
        lambda args: (
            routes_by_topk(args)
            and getattr(args, "moe_router_topk_scaling_factor", None) not in (None, 1.0)
        ),
        TOPK,
    ),
    Refusal("--moe-router-num-groups", _set("moe_router_num_groups", routes_by_topk), TOPK),
    Refusal("--moe-router-group-topk", _set("moe_router_group_topk", routes_by_topk), TOPK),
    Refusal(
        "--moe-router-enable-expert-bias",
        _set("moe_router_enable_expert_bias", routes_by_topk),
        TOPK,
    ),
    Refusal(
        "--moe-router-load-balancing-type sinkhorn",
        lambda args: (
            routes_by_topk(args)
            and "sinkhorn" in str(getattr(args, "moe_router_load_balancing_type", ""))
        ),
        TOPK,
    ),
    Refusal(
        "--moe-expert-capacity-factor",
        _set("moe_expert_capacity_factor", routes_by_topk),
        "it drops tokens, which stock architectures do not",
    ),
    Refusal(
        "--moe-router-dtype fp64",
        lambda args: has_experts(args) and getattr(args, "moe_router_dtype", None) == "fp64",
        "the router computes in fp32 or in the dtype of the weights",
    ),
    Refusal(
        "--moe-topk-warmup-steps",
        _warms_up,
        "TopK still warmed up when this was saved: convert a checkpoint of that step or later",
    ),
    Refusal(
        "--moe-relu-max-active-experts",
        _cap_holds,
        "the cap still held when this was saved: convert a checkpoint of --moe-relu-cap-steps or later",
    ),
)


def _is(name: str, *allowed: object) -> Callable:
    """The entry is there and none of these."""
    return lambda config: config.get(name) not in (None, *allowed)


def _scales_rope(config: dict) -> bool:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return rope.get("rope_type", rope.get("type", "default")) != "default"


def _has_output_bias(config: dict) -> bool:
    stock = config.get("model_type") in ("llama", "qwen3", "qwen3_moe")
    return stock and bool(config.get("attention_bias"))


def _slides(config: dict) -> bool:
    if config.get("model_type") == "mixtral":
        return config.get("sliding_window") is not None
    return bool(config.get("use_sliding_window"))


def _partial_rope(config: dict) -> bool:
    rope = config.get("rope_parameters") or {}
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    return share not in (None, 1, 1.0)


# What of config.json Megatron's decoder of this kind has no setting for.
OF_HUGGING_FACE = (
    Refusal("hidden_act", _is("hidden_act", "silu", "swish"), MLP),
    Refusal("mlp_bias", _is("mlp_bias", False), BIAS),
    Refusal("attention_bias", _has_output_bias, "it has a bias of the attention's output, too"),
    Refusal("rope_parameters", _scales_rope, ROPE),
    Refusal("partial_rotary_factor", _partial_rope, ROPE),
    Refusal("sliding_window", _slides, ATTENTION),
    Refusal(
        "quantization_config", _is("quantization_config"), "quantised weights are not converted"
    ),
    Refusal("qk_norm", _is("qk_norm", "head"), "Megatron norms queries and keys by head"),
)


def check_megatron(args: Namespace, folder: object) -> None:
    """Refuse a model that the Hugging Face form cannot express.

    Args:
        args: Stored in the checkpoint.
        folder: Named in the message.

    Raises:
        ConversionError: One line that names every such flag with the reason.
    """
    _check(OF_MEGATRON, args, folder, "Hugging Face form")


def check_hugging_face(config: dict, folder: object) -> None:
    """Refuse a model that Megatron cannot express.

    Args:
        config: Of config.json.
        folder: Named in the message.

    Raises:
        ConversionError: One line that names every such entry with the reason.
    """
    _check(OF_HUGGING_FACE, config, folder, "Megatron's form")


def _check(table: tuple[Refusal, ...], model: object, folder: object, form: str) -> None:
    found = {refusal.name: refusal.reason for refusal in table if refusal.applies(model)}
    if found:
        listed = "; ".join(f"{name}: {reason}" for name, reason in found.items())
        raise ConversionError(f"{folder}: cannot be expressed in {form}: {listed}")
