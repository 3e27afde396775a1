"""The processes that save: they end with their parent, and are not waited for when they are gone."""

import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
from megatron.core.dist_checkpointing.strategies.async_utils import (
    AsyncRequest,
    PersistentAsyncCaller,
)

from megatron.remoe.checkpoint.files import CheckpointError
from megatron.remoe.checkpoint.patches import guard_checkpoints
from megatron.remoe.processes import _runs

PARENT = """
import multiprocessing, os, sys, time
from megatron.remoe.processes import die_with_parent

die_with_parent(spawned=__name__ == "__mp_main__")

def work(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],)).start()
    time.sleep(60)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_child_dies_with_its_parent(tmp_path):
    script, note = tmp_path / "parent.py", tmp_path / "pid"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script, note], env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline, "the child did not start"
        time.sleep(0.05)
    child = int(note.read_text())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(str(child)):
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)


def test_a_child_whose_parent_died_first_ends():
    script = "from megatron.remoe.processes import die_with_parent; die_with_parent(True)"

    def code(parent):
        environment = {**ENVIRONMENT, "REMOE_PARENT_PID": str(parent)}
        return subprocess.run([sys.executable, "-c", script], env=environment).returncode

    zombie = subprocess.Popen(["true"])
    time.sleep(0.1)
    assert code(os.getpid()) == 0
    assert code(zombie.pid) == -signal.SIGKILL
    zombie.wait()
    assert code(zombie.pid) == -signal.SIGKILL


@pytest.fixture
def root(saved_checkpoints, tmp_path):
    return shutil.copytree(saved_checkpoints["torch_dist"], tmp_path / "root")


class Worker:
    """A writer process as Megatron's caller holds it."""

    exitcode = -9

    def __init__(self, alive):
        self.is_alive = lambda: alive


@pytest.mark.parametrize("blocking", [False, True])
def test_a_dead_writer_is_not_waited_for(root, monkeypatch, blocking):
    """Megatron would wait without end for its answer."""
    guard_checkpoints()
    monkeypatch.setattr(
        "megatron.remoe.checkpoint.async_writer.get_args", lambda: Namespace(save=root)
    )
    caller = PersistentAsyncCaller()
    caller._persistent_comp_q = queue.Queue()
    caller.process = Worker(alive=False)
    message = "the writer process died with exit code -9 .*iteration 20 is whole"
    with pytest.raises(CheckpointError, match=message):
        caller.is_current_async_call_done(blocking, no_dist=True)
    caller.process = None


def test_a_writer_that_dies_with_its_task_is_not_waited_for(root, monkeypatch):
    guard_checkpoints()
    monkeypatch.setattr(
        "megatron.remoe.checkpoint.async_writer.get_args", lambda: Namespace(save=root)
    )
    tasks = multiprocessing.get_context("spawn").JoinableQueue()
    tasks.put(1)
    monkeypatch.setattr(PersistentAsyncCaller, "_persistent_preload_q", tasks)
    monkeypatch.setattr(PersistentAsyncCaller, "_persistent_queue", queue.Queue())
    caller = PersistentAsyncCaller()
    caller.process = Worker(alive=False)
    request = AsyncRequest(print, (), [], preload_fn=print)
    with pytest.raises(CheckpointError, match="the writer process died with exit code -9"):
        caller.schedule_async_call(request)
    monkeypatch.setattr(PersistentAsyncCaller, "_persistent_queue", tasks)
    caller.process.kill = lambda: None
    caller.close()  # at the end of the run
    assert caller.process is None
