"""Reads plays and novels, one document a scene or a part of a novel."""

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from corpus.errors import SourceUnavailableError

_STRING_VECTOR = b"\x00\x00\x00\x10"  # R's type 16, STRSXP, as a big-endian word
_CHAPTER = re.compile(r"(?mi)^(?=(?:chapter|letter) [ivxlc\d]+\b)")


def read_plays(root: Path, include: str) -> Iterator[str]:
    """Yield the scenes of plays in Markdown: "# Play", "## ACT", "### SCENE", "**SPEAKER**"."""
    for path in sorted(root.glob(include)):
        play = act = ""
        for section in re.split(r"(?m)^(?=#)", path.read_text(encoding="utf-8")):
            heading, _, body = section.partition("\n")
            title = heading.lstrip("# ").strip()
            if heading.startswith("###"):
                yield f"{play}. {act}. {title}\n\n{_speech(body)}"
            elif heading.startswith("##"):
                act = title
            elif heading.startswith("#"):
                play = title


def _speech(body: str) -> str:
    body = re.sub(r"\*\*(.*?)\*\*", r"\1", body)
    body = re.sub(r"(?<!\w)_(.*?)_(?!\w)", r"[\1]", body, flags=re.DOTALL)  # stage directions
    return re.sub(r" +\n", "\n", body).strip("\n")


def read_r_strings(root: Path) -> Iterator[str]:
    """Yield the chapters of the novels in an R package's lazy-load database of string vectors.

    The database is a row of records: four bytes of length, then a zlib stream in R's XDR
    serialisation, of which the first string vector (STRSXP of CHARSXP, type 9) is read.
    """
    path = next(iter(sorted(root.glob("**/data/Rdata.rdb"))), None)
    if path is None:
        raise SourceUnavailableError("the package holds no data/Rdata.rdb")
    data, position = path.read_bytes(), 0
    while position < len(data):
        stream = zlib.decompressobj()
        record = stream.decompress(data[position + 4 :])
        position = len(data) - len(stream.unused_data)
        if _STRING_VECTOR in record:
            novel = "\n".join(_string_vector(record))
            yield from (chapter for chapter in _CHAPTER.split(novel) if chapter.strip())


def _string_vector(record: bytes) -> Iterator[str]:
    start = record.index(_STRING_VECTOR, 14) + 8
    (count,) = struct.unpack_from(">I", record, start - 4)
    for _ in range(count):
        flags, length = struct.unpack_from(">Ii", record, start)
        assert flags & 0xFF == 9, "not a CHARSXP"
        start += 8
        size = max(length, 0)  # -1 stands for NA
        yield record[start : start + size].decode("utf-8", "replace")
        start += size
