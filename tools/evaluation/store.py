"""Results on disk: one JSON for all models, kept after each task, so that a run can go on."""

import hashlib
import json
import os
from pathlib import Path

from evaluation.errors import EvaluationError

_FORMAT = 1


def read_results(path: Path, flag: str) -> dict:
    """Models of a results file by name, each with its `results`.

    Args:
        path: Written by `write_results`.
        flag: That named it, for the error.

    Raises:
        EvaluationError: It is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == _FORMAT and all("results" in m for m in content["models"].values()):
            return content["models"]
        reason = f"its format is {content['format']!r}, not {_FORMAT}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise EvaluationError(
        f"{flag} {path}: not a results file of this tool ({reason}); name another file"
    )


def write_results(path: Path, models: dict) -> None:
    """Replace the file at once: killed at any moment, it is the old or the new one."""
    text = json.dumps({"format": _FORMAT, "models": models}, indent=1, sort_keys=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise EvaluationError(f"--output {path}: cannot be written ({error.strerror})") from error


def merge(earlier: list[dict], own: dict) -> dict:
    """One set of models of several files; of the same model and task the later file's result stays."""
    merged: dict = {}
    for models in [*earlier, own]:
        for name, model in models.items():
            before = merged.get(name, {}).get("results", {})
            merged[name] = {**model, "results": {**before, **model["results"]}}
    return merged


def fingerprint(path: Path) -> str:
    """Tells whether a file or folder is the one seen before: names, sizes, times of change."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
