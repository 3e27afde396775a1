"""Chooses which pieces of the documents are kept: by hash, so the same text is chosen again."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from corpus.clean import cut_text
from corpus.dedup import text_key

MAX_CHARS = 24_000
MIN_CHARS = 200


@dataclass(frozen=True)
class Document:
    """A whole cleaned document: a file, a chapter, an article."""

    text: str
    source: str
    key: str


@dataclass(frozen=True)
class Piece:
    """At most `MAX_CHARS` characters of one document: one line of the output."""

    text: str
    source: str
    rank: str
    num_bytes: int


def salted_hash(key: str, salt: str) -> str:
    """Return a hash of `key` that is independent of the hashes under other salts."""
    return hashlib.sha1(f"{salt}:{key}".encode(), usedforsecurity=False).hexdigest()


def split_documents(
    documents: Iterable[Document], valid_fraction: float
) -> tuple[list[Document], list[Document]]:
    """Return (train, valid) documents.

    The side of a document depends on its own hash alone, so it is the same in every profile: a
    model trained on the large corpus has not seen the validation text of the small one.
    """
    documents = sorted(documents, key=lambda doc: salted_hash(doc.key, "split"))
    limit = int(valid_fraction * 2**32)
    num_valid = sum(int(salted_hash(doc.key, "split")[:8], 16) < limit for doc in documents)
    if valid_fraction > 0 and len(documents) > 1:
        num_valid = max(num_valid, 1)
    return documents[num_valid:], documents[:num_valid]


def cut_documents(documents: Iterable[Document], seen: set[str]) -> list[Piece]:
    """Return the pieces of `documents` that `seen` does not hold yet, and add them to it."""
    pieces = []
    for doc in documents:
        for text in cut_text(doc.text, MAX_CHARS):
            key = text_key(text)
            if len(text) >= MIN_CHARS and key not in seen:
                seen.add(key)
                rank = salted_hash(key, "sample")
                pieces.append(Piece(text, doc.source, rank, len(text.encode("utf-8"))))
    return pieces


def fair_shares(available: dict[str, int], budget: float) -> dict[str, float]:
    """Divide `budget` bytes among the sources: what a small source leaves goes to the others."""
    shares: dict[str, float] = {}
    for rank, name in enumerate(sorted(available, key=lambda n: (available[n], n))):
        left = budget - sum(shares.values())
        shares[name] = min(available[name], left / (len(available) - rank))
    return shares


def sample_pieces(pieces: Iterable[Piece], budget: float) -> list[Piece]:
    """Return about `budget` bytes of `pieces`, shared fairly by their sources, shuffled."""
    by_source: dict[str, list[Piece]] = {}
    for piece in sorted(pieces, key=lambda p: p.rank):
        by_source.setdefault(piece.source, []).append(piece)
    sizes = {name: sum(p.num_bytes for p in group) for name, group in by_source.items()}
    chosen = []
    for name, share in fair_shares(sizes, budget).items():
        taken = 0
        for piece in by_source[name]:
            if taken + piece.num_bytes / 2 > share:  # stop where the next one overshoots more
                break
            taken += piece.num_bytes
            chosen.append(piece)
    return sorted(chosen, key=lambda p: salted_hash(p.rank, "order"))
