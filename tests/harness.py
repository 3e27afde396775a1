"""Several gloo ranks in processes of their own, started once, that run one function after another.

    results = world.run(function, *arguments)  # results[rank]

`function` is pickled by its name, so it stands at the top of a module that a rank can import. It is
called as `function(*arguments)` on every rank and may return whatever pickles. An exception on any
rank raises `RankError` here with that rank's traceback; a rank that hangs is killed with all others
and raises too. The next `run` starts a fresh world.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore

GRACE = 5.0  # seconds that the other ranks get to answer once one of them has failed
START = 120.0  # seconds to import Megatron, four times on two cores


class RankError(Exception):
    """A rank raised, died or hung; the message holds each rank's traceback."""


class World:
    """`num_ranks` processes joined by gloo on the CPU, as a context manager.

    With `megatron` false the ranks import torch alone, which starts in a fraction of the time.
    """

    def __init__(self, num_ranks, megatron=True):
        self.num_ranks = num_ranks
        self.megatron = megatron
        self._ranks = []  # (process, connection)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stop()

    def run(self, function, *arguments, timeout=60.0):
        """Call `function(*arguments)` on every rank; return the results by rank."""
        if not self._ranks:
            self._start()
        task = pickle.dumps((function, arguments))
        for _, connection in self._ranks:
            connection.send_bytes(task)
        results, failures = self._collect(time.monotonic() + timeout)
        if failures:
            stacks = self._stop()
            lines = [f"--- rank {rank}: {text}" for rank, text in sorted(failures.items())]
            raise RankError("\n".join([f"{function.__name__} failed", *lines, stacks]))
        return [results[rank] for rank in range(self.num_ranks)]

    def _collect(self, deadline):
        results, failures = {}, {}
        while len(results) + len(failures) < self.num_ranks:
            for rank, (process, connection) in enumerate(self._ranks):
                if rank in results or rank in failures:
                    continue
                if connection.poll(0.01):
                    _receive(rank, process, connection, results, failures)
                elif time.monotonic() > deadline:
                    failures[rank] = "did not answer in time"
                else:
                    continue
                if failures:
                    deadline = min(deadline, time.monotonic() + GRACE)
        return results, failures

    def _start(self):
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        # Hosted here: a rank that dies must not take the others' rendezvous with it.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = multiprocessing.get_context("spawn")
        for rank in range(self.num_ranks):
            here, there = context.Pipe()
            arguments = (rank, self.num_ranks, folder, self._store.port, there, self.megatron)
            # Not a daemon: Megatron's checkpoint writer starts a process of its own.
            process = context.Process(target=_serve, args=arguments)
            process.start()
            there.close()  # so that a rank that dies closes its end
            self._ranks.append((process, here))
        _, failures = self._collect(time.monotonic() + START)
        if failures:
            raise RankError(f"the world did not start: {failures}\n{self._stop()}")

    def _stop(self):
        """Kill every rank; return where each of those that still ran was."""
        alive = [process for process, _ in self._ranks if process.is_alive()]
        for process in alive:
            os.kill(process.pid, signal.SIGUSR1)  # faulthandler writes its stack
        if alive:
            time.sleep(0.2)
        for process, connection in self._ranks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.kill()
            process.join()
            connection.close()
        self._ranks = []
        stacks = [path.read_text() for path in sorted(Path(self._folder.name).glob("*.stack"))]
        self._folder.cleanup()
        return "\n".join(f"--- stack when killed:\n{stack}" for stack in stacks if stack)


def _receive(rank, process, connection, results, failures):
    try:
        succeeded, value = pickle.loads(connection.recv_bytes())
    except (EOFError, ConnectionResetError):
        process.join()
        succeeded, value = False, f"died with exit code {process.exitcode}"
    (results if succeeded else failures)[rank] = value


def _serve(rank, num_ranks, folder, port, connection, megatron):
    """The life of a rank: join the world, then run what is sent."""
    os.setpgrp()
    stack = (folder / f"{rank}.stack").open("w")
    faulthandler.register(signal.SIGUSR1, file=stack)
    store = TCPStore("127.0.0.1", port, is_master=False)
    connection.send_bytes(_call(lambda: (join_world, (rank, num_ranks, store, megatron))))
    while True:
        try:
            task = connection.recv_bytes()
        except EOFError:  # the world was left without a stop
            return
        connection.send_bytes(_call(lambda task=task: pickle.loads(task)))


def _call(load):
    """Load and run one task; both may fail, and so may pickling what it returns."""
    try:
        function, arguments = load()
        return pickle.dumps((True, function(*arguments)))
    except BaseException:
        return pickle.dumps((False, traceback.format_exc()))


def join_world(rank, num_ranks, store, megatron=True):
    """Make this process a rank on the CPU."""
    import torch

    environment = {"RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ["LOCAL_WORLD_SIZE"] = str(num_ranks)
    torch.set_num_threads(1)  # small tensors, and more ranks than cores: threads would only wait
    if megatron:
        from megatron.remoe import cpu

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
        _destroy_groups()


def _destroy_groups():
    """Megatron only forgets its groups; each of them keeps threads and sockets that slow all others."""
    import torch
    from torch.distributed import distributed_c10d as c10d

    for group in list(c10d._world.pg_map):
        if group is not c10d.GroupMember.WORLD:
            torch.distributed.destroy_process_group(group)
