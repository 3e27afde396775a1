"""What is kept of a run: status.json beside its log, and the lock of who trains it."""

import contextlib
import fcntl
import json
import os
import platform
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from sweeping.errors import SweepError
from sweeping.runs import Run

STATUS = "status.json"
# Of a status that is whole.
NEEDED = {
    "state",
    "fingerprint",
    "settings",
    "commit",
    "hardware",
    "date",
    "threads",
    "wall_seconds",
}
LOOK_AGAIN_S = 0.5  # whether another process still holds a run


def read_status(folder: Path) -> dict:
    """The status of a run; {} where it never began.

    Raises:
        SweepError: The file is damaged, or cannot be read.
    """
    file = folder / STATUS
    try:
        status = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SweepError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        status = None
    if not isinstance(status, dict) or not status.keys() >= NEEDED:
        raise SweepError(
            f"{file} is damaged: remove that file, and the run goes on from its last checkpoint"
        )
    return status


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
    return bool(status) and status["state"] == "finished"


def _changes(status: dict, run: Run) -> str:
    old, new = {"size": status.get("size"), **status["settings"]}, run.settings
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return "; ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in keys)


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None], stopping: threading.Event):
    """Hold a run's folder: two sweeps that share a run train it once.

    Yields:
        The lock's file: it is held as long as any process has it open, so a child that is given it
        keeps the folder even where this process is killed. None where `stopping` was set first.

    Args:
        folder: Made if it is not there.
        waiting: Called once if another process holds it.
        stopping: Ends the waiting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if not _lock(file):
            waiting()
            while not _lock(file):
                if stopping.wait(LOOK_AGAIN_S):
                    yield None
                    return
        yield file


def _lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
