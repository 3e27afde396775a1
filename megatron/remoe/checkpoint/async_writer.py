"""What is replaced in Megatron so that a rank never waits for a writer process that is gone.

The persistent process that writes asynchronous saves may be killed, for want of memory say; each of
the three waits for it below has no time-out, and Megatron no slot there.
"""

import functools
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.queues import JoinableQueue
from pathlib import Path

from megatron.core.dist_checkpointing.strategies.async_utils import PersistentAsyncCaller
from megatron.training import get_args

from megatron.remoe.checkpoint.files import CheckpointError
from megatron.remoe.checkpoint.saving import not_saved


def never_wait_for_the_dead() -> None:
    """Install the replacements; once a process, by `patches.guard_checkpoints`."""
    caller = PersistentAsyncCaller
    caller.schedule_async_call = _joining_the_living(caller.schedule_async_call)
    caller.is_current_async_call_done = _asking_the_living(caller.is_current_async_call_done)
    caller.close = _closing_the_living(caller.close)


def _asking_the_living(original: Callable) -> Callable:
    """`PersistentAsyncCaller.is_current_async_call_done` where the writer process may have died.

    Megatron waits without end for the answer of a writer that was killed.
    """

    @functools.wraps(original)
    def is_current_async_call_done(self, blocking=False, no_dist=False):
        while True:
            dead = self.process is not None and not self.process.is_alive()
            done = original(self, False, no_dist)
            if dead and self.cur_item is None and not done:
                raise _writer_died(self.process)
            if done or not blocking:  # the same on all ranks: each round is a collective
                return done
            time.sleep(0.1)

    return is_current_async_call_done


def _joining_the_living(original: Callable) -> Callable:
    """`PersistentAsyncCaller.schedule_async_call`, which waits until the writer has taken the tensors.

    Without end, where the writer died before that.
    """

    @functools.wraps(original)
    def schedule_async_call(self, request):
        _join_the_living(self._persistent_preload_q, self.process or self._persistent_process)
        return original(self, request)

    return schedule_async_call


def _join_the_living(tasks: JoinableQueue | None, process: BaseProcess | None) -> None:
    """Have `tasks.join`, which waits until every task is done, raise where the writer is gone."""
    if tasks is None or process is None:
        return

    def join():
        with tasks._cond:
            while not tasks._unfinished_tasks._semlock._is_zero():
                if not process.is_alive():
                    raise _writer_died(process)
                tasks._cond.wait(0.5)

    tasks.join = join


def _closing_the_living(original: Callable) -> Callable:
    """`PersistentAsyncCaller.close`, which waits until the writer has done its last task: for ever."""

    @functools.wraps(original)
    def close(self, abort=False):
        dead = self.process is not None and not self.process.is_alive()
        _join_the_living(self._persistent_queue, self.process)
        if dead:
            for tasks in (self._persistent_queue, self._persistent_preload_q):
                tasks.cancel_join_thread()  # nobody reads them: do not wait for that at the exit
        return original(self, abort or dead)

    return close


def _writer_died(process: BaseProcess) -> CheckpointError:
    reason = f"the writer process died with exit code {process.exitcode}"
    return not_saved(Path(get_args().save), reason)
