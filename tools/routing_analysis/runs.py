"""A run's folder: its checkpoints of either form, and where its analysis goes."""

import re
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from data.quiet import quiet_imports
from evaluation.errors import EvaluationError

_CHECKPOINT_FOLDERS = ("checkpoints", "checkpoint")  # of the recipes, of the quickstart
_ITERATION = re.compile(r"iter_(\d{7,})")


@dataclass(frozen=True)
class Run:
    """A trained model.

    Attributes:
        folder: Of the run.
        checkpoints: By training step, ascending; a Hugging Face folder is step 0 alone.
        args: The arguments that Megatron stored; None for a Hugging Face folder.
        output: Where maps and figures go.
    """

    folder: Path
    checkpoints: dict[int, Path]
    args: Namespace | None
    output: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def records(self) -> Path:
        """Where `--record-routing` of the recipes puts its files."""
        return self.folder / "routing"


def find_run(path: Path, steps: list[int] | None, output: Path | None) -> Run:
    """Find the checkpoints of a run.

    Args:
        path: The run's folder, what `--save` named, one iteration's folder or a Hugging Face folder.
        steps: Those wanted; None for all that are whole.
        output: Folder with a folder for each run; None for `analysis` in the run's.

    Raises:
        EvaluationError: There is no such run, no checkpoint in it, or its model is dense.
    """
    if not path.is_dir():
        raise EvaluationError(f"{path}: no such folder; give that of a run")
    if (path / "config.json").is_file():
        return Run(path, _chosen({0: path}, steps, path), None, _output(path, output))
    folder, found = _iterations(path)
    if not found:
        looked = ", ".join(str(path / name) for name in _CHECKPOINT_FOLDERS)
        raise EvaluationError(
            f"{path}: no checkpoint there (nor in {looked}); train with --save, or name its folder"
        )
    chosen = _chosen(found, steps, path)
    args = _arguments(chosen[max(chosen)])
    return Run(folder, chosen, args, _output(folder, output))


def _output(folder: Path, output: Path | None) -> Path:
    return folder / "analysis" if output is None else output / folder.resolve().name


def _iterations(path: Path) -> tuple[Path, dict[int, Path]]:
    """The run's folder, and the checkpoints below it."""
    if match := _ITERATION.fullmatch(path.name):
        return _run_of(path.resolve().parent), {int(match[1]): path}
    for root in (path, *(path / name for name in _CHECKPOINT_FOLDERS)):
        found = {int(m[1]): p for p in root.glob("iter_*") if (m := _ITERATION.fullmatch(p.name))}
        if found:
            return _run_of(root), dict(sorted(found.items()))
    return path, {}


def _run_of(root: Path) -> Path:
    return root.parent if root.name in _CHECKPOINT_FOLDERS else root


def _chosen(found: dict[int, Path], steps: list[int] | None, path: Path) -> dict[int, Path]:
    """The wanted steps, else those whose saving was finished."""
    if steps is not None:
        if missing := sorted(set(steps) - set(found)):
            there = ", ".join(map(str, found))
            raise EvaluationError(f"--steps {missing[0]}: {path} has checkpoints of steps {there}")
        return {step: found[step] for step in sorted(set(steps))}
    if path in found.values():
        return found
    with quiet_imports():
        from megatron.remoe.checkpoint.files import what_is_wrong

    wrong = {step: reason for step, folder in found.items() if (reason := what_is_wrong(folder))}
    for step, reason in wrong.items():
        print(f"{found[step]}: left out: {reason}", file=sys.stderr)
    if len(wrong) == len(found):
        raise EvaluationError(f"{path}: none of its {len(found)} checkpoints is whole")
    return {step: folder for step, folder in found.items() if step not in wrong}


def _arguments(checkpoint: Path) -> Namespace:
    """What the run stored, if its model has experts."""
    with quiet_imports():
        from megatron.remoe.checkpoint.patches import guard_checkpoints
        from megatron.remoe.inference.stored_model import read_run

    guard_checkpoints()
    try:
        stored = read_run(checkpoint)
    except ValueError as error:
        raise EvaluationError(str(error).splitlines()[0]) from error
    if stored.routing == "dense":
        raise EvaluationError(f"{checkpoint}: the model is dense: it has no routing to analyse")
    return stored.args
