"""What a worker does with a chunk: raw documents in, arrays of token ids out."""

import os
import signal
import threading
from dataclasses import dataclass, field
from multiprocessing import parent_process

import numpy as np

from data.encoders import ENCODERS, Encoder
from data.errors import BadDocumentError, DataError
from data.records import Chunk, parse
from data.tokenization import TokenizerSpec


@dataclass
class KeyTokens:
    """The documents of one key in one chunk.

    Attributes:
        tokens: the ids of all documents on end, ``[num_tokens]``, in the output's dtype.
        lengths: tokens of each document, ``[num_documents]``; documents without tokens are left
            out.
        num_empty: how many were left out.
        num_text_bytes: UTF-8 bytes of the texts.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    num_empty: int
    num_text_bytes: int


@dataclass
class EncodedChunk:
    """A chunk after its encoding.

    Attributes:
        keys: one entry for each of ``--json-keys``.
        bad: place and reason of each document that could not be used, in input order.
        num_disk_bytes: as in the chunk.
    """

    keys: list[KeyTokens]
    num_disk_bytes: int
    bad: list[str] = field(default_factory=list)


class ChunkEncoder:
    """Encodes chunks with one tokenizer.

    Args:
        spec: the tokenizer.
        keys: the keys whose texts are encoded.
        append_eod: whether each document ends with the end-of-document token.
        skip_bad: whether to go on after a bad document in the chunk.
    """

    def __init__(self, spec: TokenizerSpec, keys: list[str], append_eod: bool, skip_bad: bool):
        self.spec = spec
        self.keys = keys
        self.suffix = [spec.eod] if append_eod else []
        self.skip_bad = skip_bad
        self.encode: Encoder = ENCODERS[spec.kind](spec.state)

    def __call__(self, chunk: Chunk) -> EncodedChunk:
        """Encodes one chunk."""
        rows: list[list[str]] = []
        places: list[str] = []
        bad: list[str] = []
        for record in chunk.records:
            try:
                rows.append(parse(record, self.keys))
                places.append(record.place)
            except BadDocumentError as error:
                bad.append(f"{record.place}: {error}")
                if not self.skip_bad:
                    break  # the parent stops at the first, so the rest is of no use
        encoded = []
        for i in range(len(self.keys)):
            texts = [row[i] for row in rows]
            try:
                encoded.append(self._encode_key(texts))
            except DataError:
                raise
            except Exception as error:  # each library fails in its own way
                raise self._blame(texts, places) from error
        return EncodedChunk(encoded, chunk.num_disk_bytes, bad)

    def _blame(self, texts: list[str], places: list[str]) -> DataError:
        """Finds the document on which the tokenizer fails."""
        for text, place in zip(texts, places, strict=True):
            try:
                self.encode([text])
            except Exception as error:
                return DataError(f"{place}: the tokenizer fails on this document: {error}")
        return DataError(f"{places[0]}: the tokenizer fails on the documents from here on")

    def _encode_key(self, texts: list[str]) -> KeyTokens:
        """Encodes the texts of one key; those that give no token disappear."""
        filled = [text for text in texts if text]
        found = [ids for ids in self.encode(filled) if len(ids)] if filled else []
        lengths = np.array([len(ids) + len(self.suffix) for ids in found], dtype=np.int32)
        ends = [np.array(self.suffix, dtype=np.int32)] * len(found)
        parts = [part for pair in zip(found, ends, strict=True) for part in pair]
        tokens = np.concatenate(parts) if parts else np.array([], dtype=np.int32)
        if tokens.size and tokens.max() >= self.spec.vocab_size:
            raise DataError(
                f"the tokenizer gave id {tokens.max()}, past its vocabulary of "
                f"{self.spec.vocab_size} entries; renumber its added tokens"
            )
        num_bytes = sum(len(text) if text.isascii() else len(text.encode()) for text in filled)
        num_empty = len(texts) - len(found)
        return KeyTokens(tokens.astype(self.spec.dtype), lengths, num_empty, num_bytes)


_encoder: ChunkEncoder | None = None  # one a process: an executor's initializer has no return value


def start_worker(*encoder_args) -> None:
    """Prepares a worker process: its tokenizer, its signals and its end."""
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _encoder = ChunkEncoder(*encoder_args)


def encode_in_worker(chunk: Chunk) -> EncodedChunk:
    """Encodes a chunk with the tokenizer of this process."""
    assert _encoder is not None, "start_worker() has not run"
    return _encoder(chunk)


def _exit_with_parent() -> None:
    """Ends this process when the parent was killed and cannot say so itself."""
    parent = parent_process()
    assert parent is not None, "runs in a worker only"
    parent.join()
    os._exit(1)
