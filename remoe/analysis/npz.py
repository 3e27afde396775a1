"""Arrays with a description in JSON, as one .npz that `numpy.load` opens without pickle."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_npz(path: Path, meta: dict, arrays: Mapping[str, Any]) -> None:
    """Write a compressed file: whole or not at all. The same content always gives the same bytes.

    Args:
        path: Its folder is made if it is not there.
        meta: Written as a JSON string, the array ``meta``.
        arrays: Of numpy, by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_npz[T](
    path: str | Path, what: str, version: int, build: Callable[[dict, Mapping[str, np.ndarray]], T]
) -> T:
    """Read a file that `write_npz` wrote.

    Args:
        path: The file.
        what: Is in it, for the message.
        version: The ``format`` that its ``meta`` must have.
        build: Makes the result of ``meta`` and the arrays, which are read as they are looked up.

    Raises:
        ValueError: In one line with the file's name, where it is missing, damaged, something else or of
            another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            if meta["format"] != version:
                raise ValueError(f"format {meta['format']}, this version reads {version}")
            return build(meta, file)
    except (
        *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not {what} ({reason})") from error
