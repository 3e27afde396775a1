"""config.json <-> the architecture that it describes, for every family in `families`."""

from collections.abc import Mapping

from megatron.remoe.conversion.architecture import (
    Architecture,
    Controller,
    ConversionError,
    Experts,
)
from megatron.remoe.conversion.families import CLASSES, family_of


def config_of(model: Architecture, dtype: str, special_tokens: Mapping[str, int | None]) -> dict:
    """What config.json says of a model.

    Args:
        model: The model.
        dtype: Of its weights, as torch names it.
        special_tokens: `bos_token_id`, `eos_token_id`, `pad_token_id`.
    """
    family = family_of(model)
    config = {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "dtype": dtype,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_width,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_groups,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.max_positions,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "attention_dropout": model.attention_dropout,
        "tie_word_embeddings": model.tied,
        "use_cache": True,
        **special_tokens,
    }
    return config | _OWN[family](model)


def _llama(model: Architecture) -> dict:
    return {"attention_bias": False, "mlp_bias": False}


def _qwen2(model: Architecture) -> dict:
    return {"use_sliding_window": False}


def _qwen3(model: Architecture) -> dict:
    return {"attention_bias": False, "use_sliding_window": False}


def _mixtral(model: Architecture) -> dict:
    experts = model.experts
    return {
        "intermediate_size": experts.width,
        "num_local_experts": experts.num_experts,
        "num_experts_per_tok": experts.topk,
        "sliding_window": None,
    }


def _qwen_moe(model: Architecture) -> dict:
    experts = model.experts
    return {
        "moe_intermediate_size": experts.width,
        "num_experts": experts.num_experts,
        "num_experts_per_tok": experts.topk,
        "norm_topk_prob": experts.renormalised,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, has in enumerate(experts.layers) if not has],
        "use_sliding_window": False,
    }


def _qwen2_moe(model: Architecture) -> dict:
    shared = {"shared_expert_intermediate_size": model.experts.shared_width}
    return _qwen_moe(model) | shared | {"qkv_bias": model.qkv_bias}


def _qwen3_moe(model: Architecture) -> dict:
    return _qwen_moe(model) | {"attention_bias": False}


def _remoe(model: Architecture) -> dict:
    experts, controller = model.experts, model.controller
    return {
        "attention_bias": model.qkv_bias,
        "qk_norm": "head" if model.qk_norm else None,
        "moe_intermediate_size": experts.width,
        "num_experts": experts.num_experts,
        "num_experts_per_tok": experts.topk,
        "moe_layers": None if all(experts.layers) else list(experts.layers),
        "shared_expert_intermediate_size": experts.shared_width or None,
        "shared_expert_gate": experts.shared_gate,
        "router_dtype": experts.router_dtype,
        "router_thresholds": experts.thresholds and list(experts.thresholds),
        "load_balancing": controller.load_balancing,
        "reg_coeff_init": controller.reg_coeff_init,
        "reg_coeff_multiplier": controller.reg_coeff_multiplier,
        "reached_target": controller.reached_target,
    }


_OWN = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "remoe": _remoe,
}


def architecture_of(config: dict, padded_vocab_size: int) -> Architecture:
    """What config.json says; it must have passed `refused.check_hugging_face`.

    Args:
        config: Of a family in `families`.
        padded_vocab_size: Rows that Megatron's embedding is to have.

    Raises:
        ConversionError: If an entry is missing, or of another type.
    """
    try:
        return _architecture(config, padded_vocab_size)
    except KeyError as error:
        raise ConversionError(f"config.json: {error.args[0]} is missing") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConversionError(f"config.json: an entry is of another type ({error})") from error


def _architecture(config: dict, padded_vocab_size: int) -> Architecture:
    family, heads = config["model_type"], config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    experts = _experts(config)
    is_relu = family == "remoe"
    width = config.get("intermediate_size") or (experts.width if experts else None)
    if width is None:
        raise KeyError("intermediate_size")
    return Architecture(
        num_layers=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        ffn_width=width,
        num_heads=heads,
        num_groups=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocab_size=config["vocab_size"],
        padded_vocab_size=padded_vocab_size,
        max_positions=config["max_position_embeddings"],
        norm_eps=config["rms_norm_eps"],
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        init_std=config.get("initializer_range", 0.02),
        attention_dropout=config.get("attention_dropout") or 0.0,
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=_has_qkv_bias(config),
        qk_norm=family in ("qwen3", "qwen3_moe") or config.get("qk_norm") == "head",
        experts=experts,
        controller=_controller(config) if is_relu else None,
    )


def _has_qkv_bias(config: dict) -> bool:
    family = config["model_type"]
    if family == "qwen2_moe":
        return config.get("qkv_bias", True)
    return family == "qwen2" or (family == "remoe" and bool(config.get("attention_bias")))


def _experts(config: dict) -> Experts | None:
    family = config["model_type"]
    if family in ("llama", "qwen2", "qwen3"):
        return None
    is_mixtral, is_relu = family == "mixtral", family == "remoe"
    thresholds = config.get("router_thresholds") if is_relu else None
    return Experts(
        num_experts=_num_experts(config),
        topk=config["num_experts_per_tok"],
        width=config["intermediate_size" if is_mixtral else "moe_intermediate_size"],
        layers=_moe_layers(config),
        relu=is_relu,
        renormalised=not is_relu and (is_mixtral or bool(config.get("norm_topk_prob", False))),
        shared_width=config.get("shared_expert_intermediate_size") or 0,
        shared_gate=_has_shared_gate(config),
        router_dtype=config.get("router_dtype"),
        thresholds=tuple(thresholds) if thresholds else None,
    )


def _num_experts(config: dict) -> int:
    # transformers 5 saves Qwen3's under Mixtral's name, older ones did not.
    names = ("num_experts", "num_local_experts")
    return next((config[name] for name in names if name in config), None) or config[names[0]]


def _has_shared_gate(config: dict) -> bool:
    if config["model_type"] == "qwen2_moe":
        return bool(config.get("shared_expert_intermediate_size"))
    return bool(config.get("shared_expert_gate", False))


def _moe_layers(config: dict) -> tuple[int, ...]:
    num_layers = config["num_hidden_layers"]
    if config["model_type"] == "remoe":
        return tuple(map(int, config.get("moe_layers") or [1] * num_layers))
    step, dense = config.get("decoder_sparse_step") or 1, config.get("mlp_only_layers") or []
    return tuple(int(i not in dense and (i + 1) % step == 0) for i in range(num_layers))


def _controller(config: dict) -> Controller:
    default = Controller()
    return Controller(
        reg_coeff_init=config.get("reg_coeff_init", default.reg_coeff_init),
        reg_coeff_multiplier=config.get("reg_coeff_multiplier", default.reg_coeff_multiplier),
        load_balancing=bool(config.get("load_balancing", True)),
        reached_target=config.get("reached_target"),
    )
