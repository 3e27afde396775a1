"""A model from a Hugging Face folder, whole or not at all."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel


def load_causal_lm(
    folder: Path, dtype: str = "auto", trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a model, from safetensors alone.

    `remoe.hf.foreign_code` says beforehand whether the folder brings code of its own.

    Args:
        folder: With config.json and the weights.
        dtype: Name of a torch dtype; "auto" for that of the weights.
        trust_remote_code: As transformers takes it.

    Raises:
        ValueError: If files are missing or damaged, or weights are missing or of another shape, which
            transformers would fill with random numbers.
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise many kinds
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{folder}: cannot be loaded: {line.strip()}") from error
    model, report = loaded
    if lacking := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise ValueError(
            f"{folder}: {len(lacking)} weights are missing or of another shape, {lacking[0]} first: "
            "copy or convert the checkpoint again"
        )
    return model
