"""Processes that end with the one that started them."""

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies, if that one needs it.

    A SIGKILL spares the children: ranks whose torchrun is gone would train and save on, and so would
    the process that writes checkpoints when its rank is gone, both into the folder that the
    resumed run writes to. Does nothing for a command that a person started.
    """
    started_by_python = multiprocessing.parent_process() is not None
    started_by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if not sys.platform.startswith("linux") or not (started_by_python or started_by_torchrun):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)
