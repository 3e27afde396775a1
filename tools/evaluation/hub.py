"""Whether the hub, from which the harness's own tasks fetch their data, can be reached."""

import os
import urllib.request

_HUB = "https://huggingface.co"
_PATIENCE_SECONDS = 5


def hub_is_reachable() -> bool:
    """Whether the hub, from which the harness's own tasks fetch their data, answers."""
    if (
        os.environ.get("HF_HUB_OFFLINE", "0") != "0"
        or os.environ.get("HF_DATASETS_OFFLINE", "0") != "0"
    ):
        return False
    try:
        endpoint = os.environ.get("HF_ENDPOINT", _HUB)
        with urllib.request.urlopen(endpoint, timeout=_PATIENCE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def forbid_hub() -> None:
    """Let nothing be asked of the hub; before its libraries are imported, which read this once."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
