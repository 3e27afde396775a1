"""Which checkpoint a command will load, and the refusal of one that is not whole."""

import re
from argparse import Namespace
from pathlib import Path

TRACKER = "latest_checkpointed_iteration.txt"


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
    if args.ckpt_step:
        return folder / f"iter_{args.ckpt_step:07d}"
    if tracked is not None:
        return folder / f"iter_{tracked:07d}"
    if flag == "--load" and may_start_afresh(args):
        return None
    raise CheckpointError(f"{flag} {root}: no checkpoint there ({TRACKER} is missing)")


def may_start_afresh(args: Namespace) -> bool:
    """Whether an empty `--load` is what the first start of a run that resumes itself looks like."""
    same = args.save and Path(args.save).absolute() == Path(args.load).absolute()
    return bool(same) and not args.exit_on_missing_checkpoint and not finished(Path(args.load))


def finished(root: Path) -> list[int]:
    """Iterations whose folder was saved to its end, newest first."""
    found = [re.fullmatch(r"iter_(\d{7,})", path.name) for path in root.glob("iter_*")]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _tracked(root: Path) -> int | str | None:
    """What the tracker file names: an iteration, "release", or None without a tracker file."""
    path = root / TRACKER
    if not path.is_file():
        return None
    text = path.read_text(errors="replace").strip()
    if text == "release":
        return text
    if not re.fullmatch(r"\d{1,18}", text):
        raise CheckpointError(f"{path}: names no iteration but {text[:40]!r}")
    return int(text)
