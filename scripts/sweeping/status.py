"""What is kept of a run: status.json beside its log, and the lock of who trains it."""

import contextlib
import fcntl
import json
import os
import platform
import subprocess
from pathlib import Path

from sweeping.errors import SweepError
from sweeping.runs import Run

STATUS = "status.json"


def read_status(folder: Path) -> dict:
    """The status of a run; {} where it never began."""
    try:
        return json.loads((folder / STATUS).read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise SweepError(
            f"{folder / STATUS} is no JSON: remove {folder} to train it anew"
        ) from None


def write_status(folder: Path, status: dict) -> None:
    """Write the status in one step, so that a reader never sees half of it."""
    part = folder / f".{STATUS}"
    part.write_text(json.dumps(status, indent=1) + "\n")
    part.replace(folder / STATUS)


def is_finished(run: Run, folder: Path) -> bool:
    """Whether the run was trained to its end with these settings.

    Raises:
        SweepError: The folder has a run of the same name and other settings.
    """
    status = read_status(folder)
    if status and status["fingerprint"] != run.fingerprint():
        raise SweepError(
            f"{run.name}: {folder} has a run of other settings ({_changes(status, run)}): "
            "remove it, or name another --runs or family"
        )
    return status.get("state") == "finished"


def _changes(status: dict, run: Run) -> str:
    old, new = {"size": status.get("size"), **status["settings"]}, run.settings
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return "; ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in keys)


@contextlib.contextmanager
def locked(folder: Path, waiting):
    """Hold a run's folder: two sweeps that share a run train it once.

    Args:
        folder: Made if it is not there.
        waiting: Called once if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hardware() -> str:
    """The GPUs, or else the processor and its cores."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        names = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        gpus = names.stdout.splitlines()
        if gpus:
            return f"{len(gpus)} x {gpus[0]}"
    model = platform.machine()
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    return f"{os.cpu_count()} cores, {model}"
