"""Writes Megatron's .bin/.idx pairs so that none is ever visible half-written.

All bytes go to ``*.partial`` files beside the targets, reach the disk, and only then get their
names: the .bin first, the .idx last. Without its .idx a .bin is nothing to Megatron.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

import numpy as np

from data.errors import DataError

PARTIAL = ".partial"


def pair_prefix(output_prefix: str, key: str) -> str:
    """Names a key's pair without its extension; the name that ``--data-path`` is given."""
    return f"{output_prefix}_{key}_document"


def check_targets(output_prefix: str, keys: list[str], overwrite: bool) -> None:
    """Refuses targets that cannot or must not be written, before any work is done.

    Raises:
        DataError: the folder is missing, or a file exists and ``--overwrite`` was not given.
    """
    folder, name = os.path.split(output_prefix)
    if not name:
        raise DataError(f"--output-prefix {output_prefix} must end in a name, not in a slash")
    if not os.path.isdir(folder or "."):
        raise DataError(f"--output-prefix {output_prefix}: no folder {folder}; create it first")
    for key in keys:
        for suffix in (".bin", ".idx"):
            path = pair_prefix(output_prefix, key) + suffix
            if os.path.exists(path) and not overwrite:
                raise DataError(f"{path} exists; pass --overwrite to replace it")


class PairWriter:
    """One .bin/.idx pair in the making.

    Args:
        prefix: path of the pair without extension.
        dtype: name of the integer type of the tokens.
    """

    def __init__(self, prefix: str, dtype: str):
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

        self._bin_path = prefix + ".bin"
        self._idx_path = prefix + ".idx"
        self._unpublished = [self._bin_path, self._idx_path]
        with _reporting(self._bin_path):
            self._lock = _lock(self._bin_path + PARTIAL)
            self._builder = IndexedDatasetBuilder(self._bin_path + PARTIAL, getattr(np, dtype))

    def add_documents(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Appends documents.

        Args:
            tokens: ids of all documents on end, ``[num_tokens]``.
            lengths: tokens of each document, ``[num_documents]``.
        """
        start = 0
        with _reporting(self._bin_path):
            for length in lengths.tolist():
                self._builder.add_document(tokens[start : start + length], [length])
                start += length

    def finish(self) -> None:
        """Brings both files to the disk, still under their partial names."""
        with _reporting(self._bin_path):
            self._builder.finalize(self._idx_path + PARTIAL)
            for path in self._unpublished:
                _sync(path + PARTIAL, os.O_RDWR)

    def publish(self) -> None:
        """Gives both files their names; an old .idx goes first, lest it pair with a new .bin."""
        with _reporting(self._idx_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._idx_path)
            while self._unpublished:
                os.replace(self._unpublished[0] + PARTIAL, self._unpublished[0])
                del self._unpublished[0]
            _sync(os.path.dirname(self._idx_path) or ".", os.O_RDONLY)

    def close(self) -> None:
        """Removes what was not published and gives the lock back."""
        with contextlib.suppress(OSError):
            self._builder.data_file.close()  # flushes, which fails again on a full disk
        for path in self._unpublished:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + PARTIAL)
        os.close(self._lock)


class DatasetWriter:
    """The pairs of all keys, published together or not at all; a context manager.

    Args:
        output_prefix: ``--output-prefix``.
        keys: the keys.
        dtype: name of the integer type of the tokens.
    """

    def __init__(self, output_prefix: str, keys: list[str], dtype: str):
        self._pairs: list[PairWriter] = []
        self._output_prefix = output_prefix
        self._keys = keys
        self._dtype = dtype

    def __enter__(self) -> "DatasetWriter":
        try:
            for key in self._keys:
                self._pairs.append(PairWriter(pair_prefix(self._output_prefix, key), self._dtype))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        for pair in self._pairs:
            pair.close()

    def add(self, index: int, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Appends documents to the pair of the key at this index."""
        self._pairs[index].add_documents(tokens, lengths)

    def commit(self) -> None:
        """Finishes every pair, then publishes them."""
        for pair in self._pairs:
            pair.finish()
        for pair in self._pairs:
            pair.publish()


@contextlib.contextmanager
def _reporting(path: str) -> Iterator[None]:
    """Turns a failure to write into one line."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}; the unfinished files were "
            "removed, free some space or choose another --output-prefix"
        ) from error


def _lock(path: str) -> int:
    """Creates and locks a partial file: two runs at one prefix would interleave their bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DataError(f"{path}: another run is writing it; choose another prefix") from error
    except OSError:
        pass  # a file system without locks
    return descriptor


def _sync(path: str, flags: int) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
