"""The order in which a checkpoint comes to be: room for it, its files, its manifest, its name.

A process killed at any moment leaves the tracker file naming a checkpoint that is whole.
"""

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from torch.distributed.checkpoint import CheckpointException

from megatron.remoe.checkpoint.atomic_file import atomic_file
from megatron.remoe.checkpoint.files import TRACKER, CheckpointError, is_finished, newest_good
from megatron.remoe.checkpoint.manifest import MANIFEST, write_manifest
from megatron.remoe.checkpoint.structure import wrong_structure

REPLACED = ".replaced"


def make_room(folder: Path) -> None:
    """Leave nothing where an iteration is about to be saved.

    What an interrupted save left is removed. A checkpoint that was finished is set aside under
    another name until the new one is finished too (`tracker_file`); meanwhile the tracker file names
    another, if there is one.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    if not is_finished(folder) and wrong_structure(folder):
        shutil.rmtree(folder)
        return
    aside = folder.with_name(folder.name + REPLACED)
    if aside.exists() and not (folder / MANIFEST).exists():
        shutil.rmtree(folder)  # a save that was interrupted while it replaced what is aside
        return
    shutil.rmtree(aside, ignore_errors=True)
    _name_another(folder)
    folder.rename(aside)


def _name_another(folder: Path) -> None:
    """Where the tracker file names a folder that is about to go, name the newest good one before it."""
    tracker = folder.parent / TRACKER
    named = tracker.read_text(errors="replace").strip() if tracker.is_file() else ""
    if not named.isdigit() or folder.name != f"iter_{int(named):07d}":
        return
    before = newest_good(folder.parent, contents=False, below=int(named))
    if before is not None:
        with atomic_file(tracker) as file:
            file.write(str(before))


@contextlib.contextmanager
def tracker_file(path: Path, hashes: bool = True) -> Iterator[io.StringIO]:
    """Open the tracker file for the name of a checkpoint whose files are all written.

    On leaving: the manifest, then the tracker file in one step, then the end of what was replaced.

    Args:
        path: Of the tracker file.
        hashes: Read every file for its hash.
    """
    text = io.StringIO()
    yield text
    name = text.getvalue()
    folder = path.parent / (f"iter_{int(name):07d}" if name.isdigit() else name)
    write_manifest(folder, hashes)
    with atomic_file(path) as file:
        file.write(name)
    shutil.rmtree(folder.with_name(folder.name + REPLACED), ignore_errors=True)


def is_about_files(error: Exception) -> bool:
    """Whether writing failed, not something else in Megatron."""
    if isinstance(error, RuntimeError):  # torch.save's way to say that the disk is full
        return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)
    return isinstance(error, OSError | CheckpointException)


def not_saved(root: Path, reason: object) -> CheckpointError:
    """The error for a save that failed: why, and what there is to go on from."""
    if isinstance(reason, CheckpointException):
        failures = [str(failure[0]) for failure in reason.failures.values()]
        reason = failures[0] if failures else "another rank could not write"
    reason = re.sub(r"\s+", " ", str(reason))[:300]
    # Megatron's writer keeps only the type of what it caught, and logs the rest.
    found = re.search(r"error: <class '(\w+)'>", reason)
    if found:
        reason = f"writing ended in {found[1]}, see 'Local worker ... encountered an error' above"
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**20
    good = newest_good(root, contents=False)  # every rank looks
    rest = "no checkpoint was saved before" if good is None else f"iteration {good} is whole"
    return CheckpointError(f"{root}: not saved: {reason} ({free:.0f} MiB free); {rest}")
