"""Worlds of gloo ranks that are fresh for each call and pay for the import of Megatron once.

    with RankLauncher() as launcher:
        results = launcher.ranks(2).run(function, *arguments)  # results[rank]

One process imports `pretrain_gpt` and forks every rank anew, in a tenth of a second: process groups
keep threads that poll for as long as their process lives, whatever becomes of the groups.

`function` is pickled by its name, so it stands at the top of a module that a rank can import. It is
called as `function(*arguments)` on every rank and may return whatever pickles. An exception on any
rank raises `RankError` here with what that rank wrote last; a rank that hangs is killed with all
others and raises too, with its stack.
"""

import contextlib
import faulthandler
import functools
import importlib
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import TCPStore

from megatron.remoe.processes import die_with_parent

GRACE = 5.0  # seconds that the other ranks get to answer once one of them has failed
START = 120.0  # seconds to import Megatron
LOG = 3000  # characters of a rank's output to show


class RankError(Exception):
    """A rank raised, died or hung; the message holds the end of each such rank's output."""


class RankLauncher:
    """The process that forks ranks, as a context manager."""

    def __init__(self):
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stop()

    def ranks(self, num_ranks):
        """What runs functions on so many ranks."""
        return Ranks(self, num_ranks)

    def run(self, num_ranks, function, arguments, timeout):
        """See `Ranks.run`."""
        if self._process is None:
            self._start()
        # Hosted here: a rank that dies must not take the others' rendezvous with it.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        task = pickle.dumps((function, arguments))
        try:
            self._connection.send((num_ranks, store.port, task, timeout))
            results = self._receive(timeout + 2 * GRACE)
        except (OSError, EOFError) as error:
            self._stop()  # the next call starts it anew
            raise RankError(f"{function.__name__}: no answer") from error
        if failures := [text for succeeded, text in results if not succeeded]:
            raise RankError(f"{function.__name__} failed\n" + "\n".join(failures))
        return [pickle.loads(value) for _, value in results]

    def _start(self):
        self._connection, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(there,))
        self._process.start()
        there.close()
        try:
            self._receive(START)
        except (OSError, EOFError) as error:
            self._stop()
            raise RankError("the process that forks ranks did not start") from error

    def _receive(self, timeout):
        if not self._connection.poll(timeout):
            raise TimeoutError
        return self._connection.recv()

    def _stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


@dataclass(frozen=True)
class Ranks:
    """So many ranks of a launcher."""

    launcher: RankLauncher
    num_ranks: int

    def run(self, function, *arguments, timeout=60.0):
        """Call `function(*arguments)` on every rank of a new world; return the results by rank."""
        return self.launcher.run(self.num_ranks, function, arguments, timeout)


def _serve(connection):
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    import pretrain_gpt  # noqa: F401

    # Megatron would import it in each rank, for a second.
    importlib.import_module("megatron.core.tokenizers.text.libraries")
    # Megatron's parser reads its help texts from the sources of 28 classes, each time it is made.
    inspect.getsource = functools.cache(inspect.getsource)
    from command_line import parse

    parse([])
    connection.send("ready")
    while True:
        try:
            num_ranks, port, task, timeout = connection.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory() as folder:
            connection.send(_run(num_ranks, port, task, timeout, Path(folder)))


def _run(num_ranks, port, task, timeout, folder):
    """Fork the ranks, wait for them, and read what they left: (succeeded, pickle or text) by rank."""
    with contextlib.suppress(Exception):  # a rank will tell
        pickle.loads(task)  # imports the function's module, once for all
    pids = {}
    for rank in range(num_ranks):
        if (pid := os.fork()) == 0:
            _become(rank, num_ranks, port, task, folder)
        pids[pid] = rank
    codes = _wait(pids, time.monotonic() + timeout)
    if len(codes) < num_ranks:
        for pid in [pid for pid in pids if pids[pid] not in codes]:
            os.kill(pid, signal.SIGUSR1)  # faulthandler writes its stack
        time.sleep(0.2)
    for pid, rank in pids.items():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # with the processes that it started
        if rank not in codes:
            os.waitpid(pid, 0)
    return [_result(rank, codes.get(rank), folder) for rank in range(num_ranks)]


def _wait(pids, deadline):
    """Exit codes by rank, of those that end before the deadline, or soon after one that failed."""
    codes = {}
    while len(codes) < len(pids) and time.monotonic() < deadline:
        for pid in [pid for pid in pids if pids[pid] not in codes]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pids[pid]] = os.waitstatus_to_exitcode(status)
                if codes[pids[pid]]:
                    deadline = min(deadline, time.monotonic() + GRACE)
        time.sleep(0.01)
    return codes


def _become(rank, num_ranks, port, task, folder):
    """The life of a rank."""
    code = 1
    try:
        die_with_parent(spawned=True)
        os.setpgrp()
        log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.register(signal.SIGUSR1, file=log)
        join_world(rank, num_ranks, TCPStore("127.0.0.1", port, is_master=False))
        function, arguments = pickle.loads(task)
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(function(*arguments)))
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)  # no cleaning up: what a fork shares is its parent's


def _result(rank, code, folder):
    if code == 0:
        # As bytes: pickled once more, tensors would start a thread here, which no fork survives.
        return True, (folder / f"{rank}.pickle").read_bytes()
    how = "did not answer in time" if code is None else f"ended with exit code {code}"
    return False, f"--- rank {rank}: {how}:\n{(folder / f'{rank}.log').read_text()[-LOG:]}"


def join_world(rank, num_ranks, store):
    """Make this process a rank on the CPU."""
    from megatron.remoe import cpu

    environment = {"RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ["LOCAL_WORLD_SIZE"] = str(num_ranks)
    torch.set_num_threads(1)  # small tensors, and more ranks than cores: threads would only wait
    assert cpu.enable(), "these tests run on the CPU: hide the GPUs with CUDA_VISIBLE_DEVICES="
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=num_ranks, timeout=timedelta(seconds=120)
    )


@contextlib.contextmanager
def layout(**sizes):
    """Megatron's process groups for one layout, e.g. `expert_model_parallel_size=2`."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
    from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler

    parallel_state.initialize_model_parallel(**sizes, create_gloo_process_groups=False)
    model_parallel_cuda_manual_seed(1234)
    MoEAuxLossAutoScaler.main_loss_backward_scale = None
    try:
        yield
    finally:
        parallel_state.destroy_model_parallel()
        destroy_groups()


def destroy_groups():
    """Megatron only forgets its groups; each of them keeps threads and sockets that slow all others."""
    from torch.distributed import distributed_c10d as c10d

    for group in list(c10d._world.pg_map):
        if group is not c10d.GroupMember.WORLD:
            torch.distributed.destroy_process_group(group)
