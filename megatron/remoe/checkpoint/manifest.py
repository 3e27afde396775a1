"""The list of a checkpoint's files with sizes and hashes, written when all of them are there.

The file and its `algorithm` and `files` are those of Megatron's `--verify-integrity`, which can read it;
`sizes` is added, so that a truncated file is found without reading it. Unlike Megatron's it lists files
in folders too (format `torch`).
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from megatron.remoe.checkpoint.atomic_file import atomic_file, sync

MANIFEST = "integrity.json"
THREADS = 8  # hashlib leaves Python's lock: about one core's worth of SHA-256 a thread
# What the loaders open; other files that a person puts into the folder do no harm.
LOADED = (".distcp", ".pt", ".metadata", "metadata.json")


def write_manifest(folder: Path, hashes: bool = True) -> None:
    """List the files of a checkpoint, once they and their entries in the folder are on the disk.

    Args:
        folder: Of one iteration.
        hashes: Read every file once more and list its SHA-256.
    """
    files = _files(folder)
    for path in files.values():
        sync(path)
    for path in {path.parent for path in files.values()}:
        sync(path)
    listed = {
        "algorithm": "sha256",
        "files": _hashes(files) if hashes else {},
        "sizes": {name: path.stat().st_size for name, path in files.items()},
    }
    with atomic_file(folder / MANIFEST) as file:
        json.dump(listed, file, indent=2)


def read_manifest(folder: Path) -> dict[str, dict[str, int | str]] | None:
    """`sizes` and `files` (hashes) by name, or None for a checkpoint without a manifest.

    Raises:
        ValueError: If it cannot be read, naming it.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_text())
        hashes, sizes = listed["files"], listed.get("sizes", {})
        if not all(isinstance(part, dict) for part in (hashes, sizes)) or not (hashes or sizes):
            raise ValueError("lists no files")
        if listed["algorithm"] != "sha256":
            raise ValueError(f"unknown algorithm {listed['algorithm']!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{MANIFEST}: cannot be read ({reason})") from error
    return {"files": hashes, "sizes": sizes}


def wrong_size(folder: Path, manifest: dict) -> str | None:
    """The first file that is missing, of another size, or too many; None if there is none."""
    names = manifest["files"] | manifest["sizes"]
    for name in names:
        path = folder / name
        if not path.is_file():
            return f"{name}: missing"
        size, expected = path.stat().st_size, manifest["sizes"].get(name)
        if expected is not None and size < expected:
            return f"{name}: truncated: {size} of {expected} bytes"
        if expected is not None and size > expected:
            return f"{name}: {size} bytes instead of {expected}"
    for name in _files(folder):
        if name not in names and name.endswith(LOADED):
            return f"{name}: does not belong to this checkpoint ({MANIFEST} does not list it)"
    return None


def wrong_hash(folder: Path, manifest: dict, part: int = 0, num_parts: int = 1) -> str | None:
    """The first file whose content differs, of every `num_parts`-th file from `part` on."""
    names = sorted(manifest["files"])[part::num_parts]
    try:
        found = _hashes({name: folder / name for name in names})
    except OSError as error:
        return f"{Path(error.filename or folder).name}: cannot be read ({error.strerror})"
    for name in names:
        if found[name] != manifest["files"][name]:
            return f"{name}: damaged: its SHA-256 is not the one in {MANIFEST}"
    return None


def _files(folder: Path) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {n: p for n, p in names.items() if n != MANIFEST and not n.endswith(".tmp")}


def _hashes(files: dict[str, Path]) -> dict[str, str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(files, pool.map(_hash, files.values()), strict=True))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
