"""The folder in which an output comes to be: named when it is whole, gone on with until then."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from megatron.remoe.checkpoint.atomic_file import sync
from megatron.remoe.conversion.architecture import ConversionError

TASK = "conversion.json"


def check_output(output: Path) -> None:
    """Refuse a place where something is.

    Raises:
        ConversionError: Naming it.
    """
    if output.is_dir() and any(output.iterdir()):
        raise ConversionError(f"--output {output}: the folder is not empty: name a new one")
    if output.exists() and not output.is_dir():
        raise ConversionError(f"--output {output}: is a file: name a new folder")


@contextlib.contextmanager
def work_folder(output: Path, task: dict) -> Iterator[Path]:
    """The folder beside `output` to write in; renamed to it when the body ends without an error.

    What an interrupted conversion of the same task left there is kept, to be gone on with; what one of
    another task left is removed. An error of the body leaves it, unless it is a `ConversionError`: what
    was refused, or found wrong, would only be found wrong again.

    Args:
        output: The folder that is to appear.
        task: Everything that the output depends on, for json.

    Raises:
        ConversionError: If another run is writing it, or the place is taken.
    """
    folder = output.with_name(output.name + ".partial")
    text = json.dumps(task, indent=2, sort_keys=True)
    with _locked(folder):
        check_output(output)  # another run may have finished it before it gave up the lock
        _start(folder, text)
        try:
            yield folder
        except ConversionError:
            shutil.rmtree(folder)
            raise
        for path in folder.rglob("*"):
            sync(path)
        (folder / TASK).unlink()
        if output.is_dir():
            output.rmdir()  # it is empty
        os.replace(folder, output)
        sync(output.parent)


def _start(folder: Path, task: str) -> None:
    """Keep what the same task left, remove what another one did; nothing that no conversion wrote."""
    left = _text(folder / TASK)
    if left is None and any(folder.iterdir()):
        raise ConversionError(f"{folder}: is in the way, and not a conversion's: move it")
    if left not in (None, task):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / TASK).write_text(task)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it against other runs for as long as this one writes there."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConversionError(f"{folder}: another run is writing there") from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(descriptor)


def fingerprint(files: list[Path]) -> str:
    """Changes where a file does: its name, size or time."""
    lines = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None
