"""Builds the train and validation pieces of one domain from those of its sources that are there."""

import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from corpus.catalogue import Domain, Source
from corpus.clean import clean_text, is_english
from corpus.dedup import NearDuplicateFilter, text_key
from corpus.errors import SourceUnavailableError
from corpus.fetch import fetch
from corpus.readers import READERS
from corpus.sample import (
    MIN_CHARS,
    Document,
    Piece,
    cut_documents,
    sample_pieces,
    split_documents,
)

# A shuffled reader is stopped after this many times the bytes that the domain may keep: enough
# for the validation side's share and for what the duplicates take away.
_READ_AHEAD = 1.5
# What a reader meets in a package whose layout has changed since the catalogue was written.
_LAYOUT_ERRORS = (OSError, LookupError, ValueError, TypeError, AttributeError, zlib.error)
_LAYOUT_ERRORS += (struct.error, StopIteration, EOFError)


@dataclass(frozen=True)
class Settings:
    """How much of each domain is kept, and where packages come from."""

    bytes_per_domain: float
    valid_fraction: float
    cache: Path
    offline: bool = False


@dataclass
class BuiltDomain:
    """The pieces of a domain, and what became of each of its sources."""

    name: str
    train: list[Piece] = field(default_factory=list)
    valid: list[Piece] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)  # of the sources that were read
    skipped: dict[str, str] = field(default_factory=dict)  # source -> reason


def build_domain(domain: Domain, settings: Settings) -> BuiltDomain:
    """Read, deduplicate, split and sample one domain."""
    built = BuiltDomain(domain.name)
    regular = [source for source in domain.sources if not source.fallback]
    documents = _read_sources(regular, domain, settings, built)
    if not documents:
        spare = [source for source in domain.sources if source.fallback]
        documents = _read_sources(spare, domain, settings, built)
    if domain.drop_near_duplicates:
        unseen = NearDuplicateFilter()
        documents = [doc for doc in documents if unseen.is_new(doc.text)]
    train, valid = split_documents(documents, settings.valid_fraction)
    seen: set[str] = set()  # shared: a page that two documents repeat stays on one side
    valid_bytes = settings.bytes_per_domain * settings.valid_fraction
    built.valid = sample_pieces(cut_documents(valid, seen), valid_bytes)
    built.train = sample_pieces(cut_documents(train, seen), settings.bytes_per_domain - valid_bytes)
    return built


def _read_sources(
    sources: list[Source], domain: Domain, settings: Settings, built: BuiltDomain
) -> list[Document]:
    """Return the documents of the sources that can be had; note the versions and the failures."""
    documents: dict[str, Document] = {}
    for source in sources:
        try:
            fetched = fetch(source, settings.cache, settings.offline)
            found = read_source(source, fetched.root, domain, settings.bytes_per_domain)
        except SourceUnavailableError as error:
            built.skipped[source.name] = str(error)
            continue
        built.versions[source.name] = fetched.version
        for document in found:
            documents.setdefault(document.key, document)
    return list(documents.values())


def read_source(source: Source, root: Path, domain: Domain, wanted_bytes: float) -> list[Document]:
    """Return the cleaned documents of one unpacked package.

    Raises:
        SourceUnavailableError: The package does not hold the text that the catalogue expects.
    """
    reader = READERS[source.reader]
    documents, num_bytes = [], 0
    try:
        for raw in reader.read(root, **source.options):
            text = clean_text(raw)
            if len(text) < MIN_CHARS or (domain.english_only and not is_english(text)):
                continue
            documents.append(Document(text, source.name, text_key(text)))
            num_bytes += len(text.encode("utf-8"))
            if reader.shuffled and num_bytes > _READ_AHEAD * wanted_bytes:
                break
    except _LAYOUT_ERRORS as error:
        raise SourceUnavailableError(f"cannot be read: {type(error).__name__}: {error}") from error
    if not documents:
        raise SourceUnavailableError("no document of enough text found in it")
    return documents


def bytes_by_source(pieces: list[Piece]) -> Counter[str]:
    """Return how many bytes of text each source gave."""
    counts: Counter[str] = Counter()
    for piece in pieces:
        counts[piece.source] += piece.num_bytes
    return counts
