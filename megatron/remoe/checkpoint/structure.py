"""Whether the files of a checkpoint can be what Megatron's loaders take them for.

Reads indexes and small objects, not tensors, and runs nothing that a file names. With `contents` it
also compares every tensor with the checksum that its zip archive holds: for checkpoints without a
manifest.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import BinaryIO

from megatron.core.safe_globals import register_safe_globals
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata
from torch.serialization import get_unsafe_globals_in_checkpoint

from megatron.remoe.checkpoint.safe_unpickling import load_metadata


def wrong_structure(folder: Path, contents: bool = False) -> str | None:
    """The first file that cannot be loaded and why, or None.

    Args:
        folder: Of one iteration, in format `torch_dist` or `torch`.
        contents: Compare tensors with their checksums, too.
    """
    # Importing Megatron does it; transformers' Trainer takes some of these names away when it resumes.
    register_safe_globals()
    try:
        if (folder / "metadata.json").exists() or (folder / ".metadata").exists():
            return _wrong_distributed(folder, contents)
        archives = sorted(folder.glob("mp_rank_*/*.pt"))
        if not any(path.name == "model_optim_rng.pt" for path in archives):
            return "neither metadata.json (torch_dist) nor mp_rank_*/model_optim_rng.pt (torch)"
        for path in archives:
            with path.open("rb") as file:
                if wrong := _wrong_archive(file, contents):
                    return f"{path.relative_to(folder)}: {wrong}"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: cannot be read ({error.strerror})"
    return None


def _wrong_distributed(folder: Path, contents: bool) -> str | None:
    try:
        backend = json.loads((folder / "metadata.json").read_text())["sharded_backend"]
    except FileNotFoundError:
        return "metadata.json: missing"
    except (ValueError, KeyError, TypeError):
        return "metadata.json: cannot be read"
    if backend != "torch_dist":
        return f"metadata.json: format {backend!r} is unknown"
    try:
        with (folder / ".metadata").open("rb") as file:
            index = load_metadata(file)
    except FileNotFoundError:
        return ".metadata: missing"
    except Exception as error:  # a damaged pickle raises anything
        return f".metadata: cannot be read ({' '.join(str(error).split())})"
    if not isinstance(index, Metadata) or not isinstance(index.storage_data, dict):
        return ".metadata: is not the index of a checkpoint"
    return _wrong_storage(folder, index, contents)


def _wrong_storage(folder: Path, index: Metadata, contents: bool) -> str | None:
    """Walks the pieces that the index names, file by file."""
    by_file: dict[str, list] = {}
    for entry, place in index.storage_data.items():
        by_file.setdefault(place.relative_path, []).append((place, entry.fqn))
    for name, pieces in by_file.items():
        path = folder / name
        if path.parent != folder:
            return f".metadata: names {name!r}, which is not in the folder"
        if not path.is_file():
            return f"{name}: missing"
        needed = max(place.offset + place.length for place, _ in pieces)
        if path.stat().st_size < needed:
            return f"{name}: truncated: {path.stat().st_size} of {needed} bytes"
        with path.open("rb") as file:
            for place, fqn in pieces:
                is_object = isinstance(index.state_dict_metadata.get(fqn), BytesStorageMetadata)
                if is_object or contents:
                    file.seek(place.offset)
                    wrong = _wrong_archive(io.BytesIO(file.read(place.length)), True)
                    if wrong:
                        return f"{name}: {wrong} ({fqn})"
    return None


def _wrong_archive(file: BinaryIO, contents: bool) -> str | None:
    """What is wrong with what `torch.save` wrote."""
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                return "damaged: not an archive of torch.save"
            archive.read(pickles[0])  # raises where its checksum differs
            if contents and (member := archive.testzip()):
                return f"damaged: the checksum of {member} differs"
        file.seek(0)
        unsafe = get_unsafe_globals_in_checkpoint(file)
    except OSError:
        raise
    except Exception as error:  # a damaged archive raises anything
        return f"damaged: {' '.join(str(error).split())}"
    return f"it names {', '.join(sorted(unsafe))}, which could run code" if unsafe else None
