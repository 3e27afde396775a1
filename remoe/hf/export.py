"""Puts the code that loads a ReMoE model, and its model card, beside its weights."""

import json
import shutil
from pathlib import Path

from .model_card_remoe import model_card

CODE_FILES = (
    "compat_remoe.py",
    "configuration_remoe.py",
    "attention_remoe.py",
    "experts_remoe.py",
    "regularization_remoe.py",
    "router_remoe.py",
    "decoder_remoe.py",
    "training_remoe.py",
    "model_card_remoe.py",
    "export.py",
    "modeling_remoe.py",
)
AUTO_MAP = {
    "AutoConfig": "configuration_remoe.ReMoEConfig",
    "AutoModel": "modeling_remoe.ReMoEModel",
    "AutoModelForCausalLM": "modeling_remoe.ReMoEForCausalLM",
}


def export_code(folder: str | Path) -> None:
    """Make a folder of weights loadable by ``from_pretrained(folder, trust_remote_code=True)``.

    Copies this code, writes a model card as README.md where there is none, and names the classes in the
    folder's config.json (`auto_map`, and `architectures` where they are not named).

    Args:
        folder: Holds a config.json of a ReMoE model.

    Raises:
        ValueError: If it does not.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"no config.json in {folder}: save the configuration there first")
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("model_type") != "remoe":
        raise ValueError(f"{path} is of a {config.get('model_type')!r} model, not of 'remoe'")
    for name in CODE_FILES:
        source = Path(__file__).parent / name
        if source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    config["auto_map"] = AUTO_MAP
    config["architectures"] = config.get("architectures") or ["ReMoEForCausalLM"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    card = folder / "README.md"
    if not card.exists():
        card.write_text(model_card(config), encoding="utf-8")
