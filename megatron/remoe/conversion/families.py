"""Which Hugging Face architecture computes the same function as a model of Megatron's."""

from megatron.remoe.conversion.architecture import Architecture, ConversionError

# model_type: the class in config.json.
CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "remoe": "ReMoEForCausalLM",
}


def family_of(model: Architecture) -> str:
    """The model_type whose function equals the model's.

    Raises:
        ConversionError: Where no stock architecture does, with the reason.
    """
    if model.routing == "ReMoE":
        return "remoe"
    if model.qkv_bias and model.qk_norm:
        raise ConversionError(
            "--add-qkv-bias with --qk-layernorm: no Hugging Face architecture has both without a bias "
            "of the attention's output"
        )
    if model.experts is None:
        return "qwen3" if model.qk_norm else "qwen2" if model.qkv_bias else "llama"
    return _family_of_topk(model)


def _family_of_topk(model: Architecture) -> str:
    experts = model.experts
    if experts.shared_width and not experts.shared_gate:
        raise ConversionError(
            "--moe-shared-expert-intermediate-size without --moe-shared-expert-gate: every Hugging "
            "Face architecture with TopK and a shared expert gates it"
        )
    if model.qk_norm:
        if experts.shared_width:
            raise ConversionError(
                "--qk-layernorm with a shared expert: no Hugging Face architecture with TopK has both"
            )
        return "qwen3_moe"
    plain = not experts.shared_width and not model.qkv_bias and all(experts.layers)
    return "mixtral" if plain and experts.renormalised else "qwen2_moe"
