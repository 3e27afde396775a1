"""Finds texts that say the same thing: exact copies, and copies with small edits."""

import hashlib
import re
from collections import defaultdict

_SHINGLE_WORDS = 8
_SKETCH_SIZE = 64
# Two sketches that share this part of their values are near-duplicates. Licences that differ in
# the holder's name share over 0.8; MIT and BSD share under 0.1.
_SAME_SHARE = 0.6


def text_key(text: str) -> str:
    """Return a hash of the words of `text`, blind to case, spacing and punctuation."""
    words = re.sub(r"\W+", " ", text.lower()).strip()
    return hashlib.sha1(words.encode("utf-8"), usedforsecurity=False).hexdigest()


def sketch(text: str) -> frozenset[int]:
    """Return the smallest hashes of the 8-word shingles of `text` (a bottom-k sketch)."""
    words = re.findall(r"\w+", text.lower())
    count = max(1, len(words) - _SHINGLE_WORDS + 1)
    shingles = {" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(count)}
    hashes = (hashlib.blake2b(s.encode("utf-8"), digest_size=8).digest() for s in shingles)
    return frozenset(sorted(int.from_bytes(h, "big") for h in hashes)[:_SKETCH_SIZE])


class NearDuplicateFilter:
    """Remembers the sketches of the texts it let pass."""

    def __init__(self) -> None:
        self._sketches: list[frozenset[int]] = []
        self._holders: dict[int, list[int]] = defaultdict(list)

    def is_new(self, text: str) -> bool:
        """Return False if a text like this one passed before, else remember it."""
        values = sketch(text)
        shared: dict[int, int] = defaultdict(int)
        for value in values:
            for holder in self._holders[value]:
                shared[holder] += 1
        for holder, count in shared.items():
            if count >= _SAME_SHARE * min(len(values), len(self._sketches[holder])):
                return False
        for value in values:
            self._holders[value].append(len(self._sketches))
        self._sketches.append(values)
        return True
