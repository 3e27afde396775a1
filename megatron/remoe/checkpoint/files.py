"""Which checkpoint a command will load, and the refusal of one that is not whole."""

import os
import re
from argparse import Namespace
from pathlib import Path

from megatron.remoe.checkpoint.manifest import MANIFEST, read_manifest, wrong_hash, wrong_size
from megatron.remoe.checkpoint.structure import wrong_structure

TRACKER = "latest_checkpointed_iteration.txt"
FORMATS = ("torch_dist", "torch")  # what is checked; the others are left to Megatron


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded or saved, said in one line with the file and the mend."""


def checkpoint_to_load(args: Namespace) -> Path | None:
    """The iteration folder that this command will load.

    As Megatron chooses: `--ckpt-step`, else what the tracker file in `--load` names, else
    `--pretrained-checkpoint`'s. Non-persistent checkpoints are left out.

    Args:
        args: Parsed, before or after Megatron's validation.

    Returns:
        A folder, which may be missing or damaged; None where training starts afresh, and for object
        storage, where Megatron looks itself.

    Raises:
        CheckpointError: If that is not clear: a damaged tracker file, a `--load` where nothing is.

    A run that resumes itself and finds checkpoints but no tracker file goes on from the newest good
    one: `args.ckpt_step` is set to it.
    """
    root, flag = args.load, "--load"
    if args.pretrained_checkpoint and not (root and Path(root, TRACKER).is_file()):
        root, flag = args.pretrained_checkpoint, "--pretrained-checkpoint"
    if not root or "://" in root:
        return None
    folder = Path(root)
    tracked = _tracked(folder)
    if tracked == "release":  # Megatron ignores --ckpt-step then
        return folder / "release"
    if args.ckpt_step or tracked is not None:
        return folder / f"iter_{args.ckpt_step or tracked:07d}"
    if flag == "--load" and resumes_itself(args) and not args.exit_on_missing_checkpoint:
        # Killed in its first save, between the last file and the tracker file, or not begun yet.
        args.ckpt_step = newest_good(folder, contents=False)
        return folder / f"iter_{args.ckpt_step:07d}" if args.ckpt_step else None
    raise refusal(folder, f"{flag} {root}: no checkpoint is named there ({TRACKER} is missing)")


def resumes_itself(args: Namespace) -> bool:
    """Whether `--load` is also `--save`: the same command starts the run and goes on with it."""
    both = args.save and args.load
    return bool(both) and Path(args.save).absolute() == Path(args.load).absolute()


def check_checkpoint(args: Namespace) -> Path | None:
    """Refuse a checkpoint that is not whole, by names, sizes and indexes; see `check_contents`.

    Returns:
        What `checkpoint_to_load` says.

    Raises:
        CheckpointError: Naming the file, and the newest good checkpoint.
    """
    folder = checkpoint_to_load(args)
    if folder and args.ckpt_format in FORMATS and (wrong := what_is_wrong(folder)):
        raise refusal(folder.parent, f"{folder}: {wrong}", but=folder)
    return folder


def check_contents(folder: Path, part: int = 0, num_parts: int = 1) -> str | None:
    """Compare what `check_checkpoint` did not read: every file with its hash.

    Without hashes the first part compares each tensor with the checksum in its zip archive.

    Args:
        folder: Of one iteration.
        part: Which of `num_parts` shares of the files to read.
        num_parts: Ranks that share the work.

    Returns:
        The first wrong file, or None.
    """
    manifest = read_manifest(folder)
    if manifest and manifest["files"]:
        return wrong_hash(folder, manifest, part, num_parts)
    return wrong_structure(folder, contents=True) if part == 0 else None


def what_is_wrong(folder: Path) -> str | None:
    """The first file of an iteration's folder that is wrong, and how; None if there is none."""
    if not folder.is_dir():
        return "the folder is missing"
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return str(error)
    return (manifest and wrong_size(folder, manifest)) or wrong_structure(folder)


def is_finished(folder: Path) -> bool:
    """Whether the last file of a save is there: our manifest, or the index of torch_dist."""
    return (folder / MANIFEST).exists() or (folder / ".metadata").exists()


def newest_good(
    root: Path, but: Path | None = None, contents: bool = True, below: int | None = None
) -> int | None:
    """The last iteration in a folder that can be loaded, or None.

    Of format `torch` only one with a manifest: without it a rank's file may be missing.

    Args:
        root: What `--load` names.
        but: A folder to leave out.
        contents: Read the files and compare their hashes.
        below: Look among the iterations before this one.
    """
    found = [re.fullmatch(r"iter_(\d{7,})", path.name) for path in root.glob("iter_*")]
    for iteration in sorted((int(match[1]) for match in found if match), reverse=True):
        folder = root / f"iter_{iteration:07d}"
        if folder == but or (below is not None and iteration >= below) or not is_finished(folder):
            continue
        if what_is_wrong(folder) or (contents and check_contents(folder)):
            continue
        return iteration
    return None


def refusal(root: Path, what: str, but: Path | None = None) -> CheckpointError:
    """The error that says what is wrong and which checkpoint in `root` to load instead."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return CheckpointError(what)  # only the first rank of a node speaks: spare the reading
    good = newest_good(root, but)
    if good is None:
        return CheckpointError(f"{what}; no good checkpoint is in {root}")
    return CheckpointError(f"{what}; load the newest good one with --ckpt-step {good}")


def _tracked(root: Path) -> int | str | None:
    """What the tracker file names: an iteration, "release", or None without a tracker file."""
    path = root / TRACKER
    if not path.is_file():
        return None
    text = path.read_text(errors="replace").strip()
    if text == "release":
        return text
    if not re.fullmatch(r"\d{1,18}", text):
        raise refusal(root, f"{path}: names no iteration but {text[:40]!r}")
    return int(text)
