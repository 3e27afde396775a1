"""Trains the runs of a sweep on this machine, some at a time."""

import contextlib
import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from evaluation.provenance import commit
from sweeping import status as kept
from sweeping.errors import SweepError
from sweeping.runs import Run, command_of, shown
from sweeping.vocabulary import OF_THE_PLACE, REPO, RESERVED, variables_of_recipes

LAST_LINES = 12  # of a failed run's log
GRACE_S = 20  # between the polite signal and the other one


@dataclass
class LocalRunner:
    """Trains runs, `jobs` at a time; a failed one does not end the others.

    Attributes:
        root: Folder of all runs: ROOT/FAMILY/RUN.
        family: Folder of these.
        jobs: Runs at a time.
        threads: Of each run.
        launcher: Words before the command of each run, such as srun's.
        failed: Names of runs that failed, and why.
    """

    root: Path
    family: str
    jobs: int
    threads: int
    launcher: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    _children: set[subprocess.Popen] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def train(self, runs: list[Run]) -> None:
        """Train all that are not finished; Ctrl-C ends those that are under way.

        Raises:
            SweepError: A run's folder holds one of other settings; nothing was started then.
            KeyboardInterrupt: After the children ended.
        """
        for run in runs:
            kept.is_finished(run, self.root / self.family / run.name)
        self._origin = {"commit": commit(), "hardware": kept.hardware()}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                futures = [
                    pool.submit(self._one, run, f"[{i}/{len(runs)}] {run.name}")
                    for i, run in enumerate(runs, 1)
                ]
                for future in futures:
                    future.result()
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, run: Run, label: str) -> None:
        if self._stopping.is_set():
            return
        try:
            self._train_one(run, self.root / self.family / run.name, label)
        except (SweepError, OSError) as error:  # of this run's folder or data: the others go on
            self.failed[run.name] = str(error)
            _say(f"{label}: failed")

    def _train_one(self, run: Run, folder: Path, label: str) -> None:
        waiting = partial(_say, f"{label}: another sweep trains it, waiting")
        with kept.locked(folder, waiting, self._stopping) as lock:
            if lock is None or self._stopping.is_set():
                return
            if kept.is_finished(run, folder):
                _say(f"{label}: finished before, skipped")
            else:
                self._launch(run, folder, label, lock)

    def _launch(self, run: Run, folder: Path, label: str, lock: IO) -> None:
        before = kept.read_status(folder)
        command = command_of(run, self.root, self.family, _private_index(folder))
        _say(f"{label}: {'goes on' if before else 'starts'}: {shown(command)}")
        record = {
            "state": "running",
            "fingerprint": run.fingerprint(),
            "settings": run.settings,
            "recording": run.recording,
            "command": shown(command),
            **self._origin,
            "threads": self.threads,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "attempts": before.get("attempts", 0) + 1,
            "wall_seconds": before.get("wall_seconds", 0.0),
        }
        kept.write_status(folder, record)
        log = folder / "log"
        said_before = log.stat().st_size if log.exists() else 0
        began = time.monotonic()
        code = self._wait(command, log, lock)
        record["wall_seconds"] = round(record["wall_seconds"] + time.monotonic() - began, 1)
        record["state"] = (
            "finished" if code == 0 else "interrupted" if self._stopping.is_set() else "failed"
        )
        kept.write_status(folder, record)
        if code == 0:
            shutil.rmtree(folder / "data_cache", ignore_errors=True)
        _say(f"{label}: {record['state']} after {time.monotonic() - began:.0f} s")
        if record["state"] == "failed":
            self.failed[run.name] = f"exit status {code}, {log} ends:\n{_tail(log, said_before)}"

    def _wait(self, command: list[str], log: Path, lock: IO) -> int:
        ours = RESERVED | variables_of_recipes()
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ours or OF_THE_PLACE.fullmatch(key)
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment |= {"PATH": path, "OMP_NUM_THREADS": str(self.threads)}
        with log.open("a") as file:
            print(shown(command), file=file, flush=True)
            child = subprocess.Popen(
                [*self.launcher, *command],
                cwd=REPO,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its workers end with it
                pass_fds=[lock.fileno()],  # it outlives a killed sweep: the next one waits for it
            )
            self._children.add(child)
            if self._stopping.is_set():
                _signal(child, signal.SIGTERM)
            code = child.wait()
            self._children.discard(child)
        return code

    def _stop(self) -> None:
        """End the children: politely, then for good."""
        self._stopping.set()
        children = list(self._children)
        for child in children:
            _signal(child, signal.SIGTERM)
        for child in children:
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)


def _private_index(folder: Path) -> list[str]:
    """Runs that start together must not write the index of the data to the same place."""
    return ["--data-cache-path", str(folder / "data_cache")]


def _signal(child: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _say(line: str) -> None:
    print(f"{line}\n", end="", flush=True)  # one piece: other threads say something, too


def _tail(log: Path, start: int) -> str:
    """The last lines of a log, read from `start` on, before torchrun says that a worker failed."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = re.split(r"\n.*torch/distributed/elastic.*failed \(exitcode", text)
    own = lines[-2] if len(lines) > 1 else text
    told = [
        line
        for line in own.splitlines()
        if "UserWarning" not in line and "warnings.warn(" not in line
    ]
    return "\n".join(f"    {line[:300]}" for line in told[-LAST_LINES:])
