"""Makes the text for preprocess.py, and sums up the ids that come out of either side."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DOCUMENTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Tokens:
    """Documents and tokens of one output, and a hash over ids and lengths of all of them."""

    num_documents: int
    num_tokens: int
    sha256: str


def write_text(sources: Sequence[Path], num_bytes: int, path: Path) -> float:
    """Writes lines of the sources in turn, from their beginning again where they end too early.

    Args:
        sources: files of JSON lines.
        num_bytes: where to stop, give or take a line.
        path: the file to write.

    Returns:
        How many times the sources are in it.
    """
    once = sum(source.stat().st_size for source in sources)
    if not once:
        raise ValueError(f"no text in {', '.join(map(str, sources)) or 'no files'}")
    written = 0
    with path.open("wb") as out:
        while written < num_bytes:
            for line in lines_in_turn(sources):
                written += out.write(line.rstrip(b"\n") + b"\n")
                if written >= num_bytes:
                    break
    return written / once


def lines_in_turn(sources: Sequence[Path]) -> Iterator[bytes]:
    """Yields a line of each file, then the next line of each, to the end of the longest."""
    with ExitStack() as stack:
        files = [stack.enter_context(source.open("rb")) for source in sources]
        for lines in itertools.zip_longest(*files):
            yield from filter(None, lines)


def read_megatron(prefix: Path) -> Tokens:
    """Sums up a .bin/.idx pair."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(prefix))
    count = range(0, len(dataset), DOCUMENTS_AT_ONCE)
    return _sum_up(dataset[i : i + DOCUMENTS_AT_ONCE] for i in count)


def read_arrow(paths: Sequence[str]) -> Tokens:
    """Sums up the column input_ids of Arrow files, one after another."""
    import pyarrow as pa

    def batches() -> Iterator[list[np.ndarray]]:
        for path in paths:
            with pa.memory_map(path) as file:
                for batch in pa.ipc.open_stream(file):
                    yield [row.values.to_numpy() for row in batch.column("input_ids")]

    return _sum_up(batches())


def _sum_up(batches: Iterator[Sequence[np.ndarray]]) -> Tokens:
    """Counts and hashes batches of documents, whatever their integer type."""
    digest, num_documents, num_tokens = hashlib.sha256(), 0, 0
    for batch in batches:
        for ids in batch:
            num_documents += 1
            num_tokens += len(ids)
            digest.update(len(ids).to_bytes(8) + ids.astype("<i4").tobytes())
    return Tokens(num_documents, num_tokens, digest.hexdigest())
