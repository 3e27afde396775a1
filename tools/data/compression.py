"""Opens a plain or compressed file as a stream of bytes that knows its place on disk."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from data.errors import DataError
from data.sources import Source

INSTALL_HINT = "pip install 'remoe-megatron[data]'"
# What gzip, xz, bz2 and our zst raise for data that ends early or does not decode.
DAMAGE_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)
ZSTD_MAX_WINDOW = 2**31  # `zstd --long=31`, the largest window that the format's tool writes
READ_BYTES = 1 << 15  # a repetitive block may unfold to thousands of times its size


class ZstdStream(io.RawIOBase):
    """Decompresses zst, frame after frame, and raises EOFError where the last one is cut off.

    zstandard's own stream_reader ends in silence on a truncated file, as if all had been read.
    """

    def __init__(self, raw: io.BufferedReader):
        import zstandard

        self._raw = raw
        self._error = zstandard.ZstdError
        self._factory = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
        self._frame = None
        self._pending = b""  # compressed bytes that the finished frame left over
        self._output = memoryview(b"")

    def readable(self) -> bool:
        """Says that this stream is for reading."""
        return True

    def readinto(self, buffer) -> int:
        """Fills the buffer with decompressed bytes; 0 means that the file is whole and done."""
        while not self._output:
            data = self._pending or self._raw.read(READ_BYTES)
            self._pending = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the last frame is cut off")
                return 0
            self._output = memoryview(self._decompress(data))
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self, data: bytes) -> bytes:
        """Feeds one block to the current frame and opens the next frame where that one ends."""
        if self._frame is None:
            self._frame = self._factory.decompressobj()
        try:
            output = self._frame.decompress(data)
        except self._error as error:
            raise OSError(str(error)) from error
        if self._frame.eof:
            self._pending, self._frame = self._frame.unused_data, None
        return output


def require_zstandard(path: str) -> None:
    """Raises DataError where the optional package for zst is missing."""
    try:
        import zstandard  # noqa: F401
    except ImportError as error:
        raise DataError(f"{path}: reading zst needs zstandard: {INSTALL_HINT}") from error


OPENERS: dict[str, Callable[[io.BufferedReader], io.BufferedIOBase]] = {
    "": lambda raw: raw,
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
    ".zst": lambda raw: io.BufferedReader(ZstdStream(raw), READ_BYTES),
}


@contextmanager
def open_stream(source: Source) -> Iterator[tuple[io.BufferedIOBase, io.BufferedReader]]:
    """Opens a file for reading.

    Yields:
        The decompressed stream, and the file below it, whose ``tell()`` is the place on disk.

    Raises:
        DataError: the optional package for zst is missing.
    """
    if source.compression == ".zst":
        require_zstandard(source.path)
    with open(source.path, "rb") as raw:
        yield OPENERS[source.compression](raw), raw
