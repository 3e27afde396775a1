"""Counts what goes by, shows it while it does, and sums it up at the end."""

import sys
import time
from dataclasses import dataclass, field

from tqdm import tqdm

from data.worker import EncodedChunk

MAX_PLACES = 5  # of bad documents, in the closing lines
MEGABYTE = 1e6


@dataclass
class KeyTally:
    """What one key's dataset holds so far."""

    num_documents: int = 0
    num_tokens: int = 0
    num_empty: int = 0


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        keys: one entry for each of ``--json-keys``.
        num_documents: documents read and usable, empty ones included.
        num_text_bytes: UTF-8 bytes of their texts.
        num_bad: documents passed over with ``--skip-bad``.
        bad: place and reason of the first of them.
    """

    keys: list[KeyTally]
    num_documents: int = 0
    num_text_bytes: int = 0
    num_bad: int = 0
    bad: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def add(self, chunk: EncodedChunk) -> None:
        """Counts a chunk."""
        for tally, key in zip(self.keys, chunk.keys, strict=True):
            tally.num_documents += len(key.lengths)
            tally.num_tokens += len(key.tokens)
            tally.num_empty += key.num_empty
            self.num_text_bytes += key.num_text_bytes
        self.num_documents += len(chunk.keys[0].lengths) + chunk.keys[0].num_empty
        self.num_bad += len(chunk.bad)
        self.bad += chunk.bad[: MAX_PLACES - len(self.bad)]

    @property
    def num_tokens(self) -> int:
        """Tokens of all keys."""
        return sum(key.num_tokens for key in self.keys)

    @property
    def seconds(self) -> float:
        """Time since the first document was asked for."""
        return max(time.monotonic() - self.start, 1e-9)

    @property
    def speed(self) -> str:
        """Documents and text a second."""
        documents = self.num_documents / self.seconds
        megabytes = self.num_text_bytes / MEGABYTE / self.seconds
        return f"{documents:,.0f} documents/s, {megabytes:.2f} MB/s"

    def summary(self) -> str:
        """The closing line."""
        megabytes = self.num_text_bytes / MEGABYTE
        ratio = self.num_tokens / max(self.num_text_bytes, 1)
        return (
            f"{self.num_documents:,} documents, {self.num_tokens:,} tokens, {megabytes:,.1f} MB "
            f"of text in {self.seconds:.1f} s ({self.speed}), {ratio:.3f} tokens per byte"
        )

    def bad_lines(self) -> list[str]:
        """Says how many documents were passed over, and where the first stand."""
        if not self.num_bad:
            return []
        more = self.num_bad - len(self.bad)
        lines = [f"skipped {self.num_bad:,} bad documents:", *(f"  {place}" for place in self.bad)]
        return [*lines, f"  and {more:,} more"] if more else lines


def progress_bar(num_disk_bytes: int) -> tqdm:
    """Opens a bar over the bytes on disk, the only total that is known before the end."""
    return tqdm(
        total=num_disk_bytes,
        unit="B",
        unit_scale=True,
        desc="tokenizing",
        # A log file wants a line now and then rather than ten a second.
        mininterval=0.2 if sys.stderr.isatty() else 15,
        bar_format="{desc}: {percentage:3.0f}% of {total_fmt} [{elapsed}<{remaining}{postfix}]",
    )
