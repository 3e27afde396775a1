"""Reads dictionaries, one document a run of neighbouring entries."""

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from itertools import batched
from pathlib import Path

from corpus.errors import SourceUnavailableError

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Marks of the edition an entry came from; in the JSON edition some lost their opening bracket.
_EDITION_MARKS = re.compile(
    r"\s*\[?(?:1913 Webster|Webster 1913 Suppl\.|PJC|WordNet 1\.5)(?: ?\+ ?PJC)?\]"
)


def _runs(entries: Iterable[str], entries_per_document: int) -> Iterator[str]:
    for run in batched(entries, entries_per_document):
        yield "\n\n".join(run)


def read_gcide_json(root: Path, include: str, entries_per_document: int) -> Iterator[str]:
    """Yield runs of entries of the GCIDE in JSON: {"entry", "pos": [{"definitions": [...]}]}.

    Etymologies are left out: this edition lost their Greek and ran some into the definitions.
    """
    for path in sorted(root.glob(include)):
        words = json.loads(path.read_text(encoding="utf-8"))
        texts = (_gcide_entry(word) for word in words.values())
        yield from _runs((text for text in texts if text), entries_per_document)


def _gcide_entry(word: dict) -> str:
    lines = []
    for sense in word["pos"]:
        definitions = [d for d in sense["definitions"] if d["text"].strip()]
        if not definitions:
            continue
        lines.append(f"{word['entry']}, {sense.get('part_of_speech') or ''}".rstrip(" ,"))
        for number, definition in enumerate(definitions, 1):
            label = f"{number}. " if len(definitions) > 1 else ""
            lines.append(f"   {label}{definition['text'].strip()}")
            lines += [f"      {example.strip()}" for example in definition["examples"]]
    return _EDITION_MARKS.sub("", "\n".join(lines))


def read_dictd(root: Path, include: str, entries_per_document: int) -> Iterator[str]:
    """Yield runs of entries of a dictd dictionary.

    The .dict.dz file is plain gzip; each line of the .index gives a word with the offset and the
    length of its entry, as numbers in base 64.
    """
    path = next(iter(sorted(root.glob(include))), None)
    if path is None:
        raise SourceUnavailableError(f"the package holds no {include}")
    data = gzip.decompress(path.read_bytes())
    spans = set()
    index = path.with_name(path.name.removesuffix(".dict.dz") + ".index")
    for line in index.read_text(encoding="utf-8", errors="replace").split("\n"):
        fields = line.split("\t")
        if len(fields) >= 3 and not fields[0].startswith("00"):  # 00database...: notes
            spans.add((_base64_number(fields[1]), _base64_number(fields[2])))
    yield from _runs(_dictd_entries(data, sorted(spans)), entries_per_document)


def _dictd_entries(data: bytes, spans: list[tuple[int, int]]) -> Iterator[str]:
    end = -1
    for start, length in spans:
        if start < end:  # another name of the entry before
            continue
        end = start + length
        entry = data[start:end].decode("utf-8", "replace").strip("\n")
        yield _EDITION_MARKS.sub("", entry.replace("{", "").replace("}", ""))


def _base64_number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS.index(digit)
    return value
