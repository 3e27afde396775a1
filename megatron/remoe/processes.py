"""Processes that end with the one that started them."""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "REMOE_PARENT_PID"


def die_with_parent(spawned: bool) -> None:
    """Have Linux kill this process when the one that started it dies, if that one needs it.

    A SIGKILL spares the children: ranks whose torchrun is gone would train and save on, and so would
    the processes that write checkpoints when their rank is gone, both into the folder that the
    resumed run writes to. Does nothing for a command that a person started.

    Args:
        spawned: Whether multiprocessing started this process (`__name__ == "__mp_main__"`;
            `multiprocessing.parent_process()` is not known yet while the script is imported).
    """
    if not sys.platform.startswith("linux"):
        return
    if spawned or "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Not os.getppid(): a fork server may stand between. It ends, as this process then, with the script.
    if spawned and not _runs(os.environ.get(PARENT, str(os.getppid()))):  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ[PARENT] = str(os.getpid())


def _runs(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
