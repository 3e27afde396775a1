"""Tells whether a folder asks to run code that is not this package's."""

import json
from pathlib import Path

from .export import AUTO_MAP

FILES = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")

KERNELS = ("attn_implementation", "_attn_implementation")


def foreign_code(folder: str | Path) -> str | None:
    """The first entry that names other code than a ReMoE model's own; None without one.

    Loaders that are told to trust a folder run what is named there, and import what lies beside it.

    Args:
        folder: Of a model or of a tokenizer, in Hugging Face form.

    Returns:
        What to say of it, with the file.

    Raises:
        ValueError: If one of these files is no JSON object.
    """
    for name in FILES:
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            asked = dict(content.get("auto_map") or {})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from error
        for key in KERNELS:
            # transformers fetches attention of the form `owner/repository` from the hub, and runs it
            if "/" in str(content.get(key)):
                return f"{path}: asks to run foreign code ({key}: {content[key]})"
        own = AUTO_MAP if content.get("model_type") == "remoe" else {}
        for key, target in asked.items():
            targets = target if isinstance(target, list) else [target]
            if any(each not in (None, own.get(key)) for each in targets):
                return f"{path}: asks to run foreign code (auto_map {key}: {target})"
    return None
