"""Encodes a stream of chunks in several processes, in order and with few chunks in flight."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from data.errors import DataError
from data.records import Chunk
from data.worker import ChunkEncoder, EncodedChunk, encode_in_worker, start_worker

# Enough that a long document at the head of the queue leaves the other workers busy.
CHUNKS_PER_WORKER = 4


def encode_chunks(
    chunks: Iterable[Chunk], num_workers: int, *encoder_args
) -> Iterator[EncodedChunk]:
    """Encodes chunks and yields them in the order in which they came.

    Args:
        chunks: the input; it is read no faster than the workers encode.
        num_workers: processes; with 1 the encoding happens in this one.
        encoder_args: the arguments of ``ChunkEncoder``.

    Raises:
        DataError: a worker process died.
    """
    if num_workers == 1:
        yield from map(ChunkEncoder(*encoder_args), chunks)
        return
    # Spawned, not forked: a fork would copy the threads' locks of torch and tokenizers.
    executor = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), start_worker, encoder_args
    )
    pending: deque[Future[EncodedChunk]] = deque()
    try:
        for chunk in chunks:
            with _sigint_held():  # workers start in submit
                pending.append(executor.submit(encode_in_worker, chunk))
            if len(pending) >= CHUNKS_PER_WORKER * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, as when the system kills it for memory; "
            f"try fewer than --workers {num_workers}"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _sigint_held() -> Iterator[None]:
    """Ctrl-C reaches this process a little later, and a process that starts meanwhile never.

    A signal mask is inherited. Without it a worker would end with a traceback in its imports, before it
    can say what it ignores.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
