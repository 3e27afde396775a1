"""Runs a command and watches the memory of it and of all processes that it starts."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Usage:
    """What a command cost.

    Attributes:
        seconds: from its start to its end, imports included.
        cpu_seconds: of all its processes, user and system; other work on the machine hardly changes it.
        peak_mb: 10^6 bytes, the largest sum of PSS over the tree: a page that n processes share counts
            1/n in each of them, so that forked copies are not counted twice.
        peak_anonymous_mb: the same of the pages that no file backs; a memory-mapped output is not in it.
        stdout: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    peak_anonymous_mb: float
    stdout: str


def measure(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Usage:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        environment: variables set for it besides the present ones.

    Raises:
        SystemExit: it failed; the message holds the end of what it said.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **(environment or {})},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        peaks, done = [0, 0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, done))
        watcher.start()
        try:
            _, status, spent = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - begin
        finally:
            with contextlib.suppress(
                ProcessLookupError
            ):  # an interrupted one leaves nothing running
                os.killpg(process.pid, signal.SIGKILL)
            done.set()
            watcher.join()
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            end = err.read()[-3000:]
            raise SystemExit(f"{command[1]} ended with code {process.returncode}:\n{end}")
        cpu_seconds = spent.ru_utime + spent.ru_stime
        return Usage(seconds, cpu_seconds, peaks[0] / 1e6, peaks[1] / 1e6, out.read())


def _watch(pid: int, peaks: list[int], done: threading.Event) -> None:
    """Raises the peaks to the largest sums seen until the end."""
    while not done.wait(SAMPLE_SECONDS):
        sums = tree_memory(pid)
        peaks[:] = [max(old, new) for old, new in zip(peaks, sums, strict=True)]


def tree_memory(pid: int) -> tuple[int, int]:
    """Bytes of a process and its descendants now: PSS, and the anonymous part of it."""
    try:
        root = psutil.Process(pid)
        members = [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0, 0
    sums = [_process_memory(member) for member in members]
    return sum(pss for pss, _ in sums), sum(anonymous for _, anonymous in sums)


def _process_memory(pid: int) -> tuple[int, int]:
    """Reads the kernel's own sums over the pages of one process; zeros if it has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            words = [line.split() for line in file]
    except OSError:
        return 0, 0
    kilobytes = {line[0]: int(line[1]) for line in words if line[-1] == "kB"}
    return 1024 * kilobytes.get("Pss:", 0), 1024 * kilobytes.get("Pss_Anon:", 0)
