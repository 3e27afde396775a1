"""The readers by the names that the catalogue calls them.

A reader is a generator: `reader(root, **options)` yields the raw text of each document of the
unpacked package in the folder `root`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from corpus.readers.archives import read_tar
from corpus.readers.bibles import read_pythonbible, read_sword
from corpus.readers.dictionaries import read_dictd, read_gcide_json
from corpus.readers.docstrings import read_docstrings
from corpus.readers.encyclopedias import read_factbook, read_mediawiki
from corpus.readers.files import read_files
from corpus.readers.formal import read_metamath
from corpus.readers.licences import read_scancode, read_spdx_bundle
from corpus.readers.literature import read_plays, read_r_strings
from corpus.readers.manpages import read_manpages


@dataclass(frozen=True)
class Reader:
    """A reading function; a `shuffled` one may be stopped as soon as enough has been read."""

    read: Callable[..., Iterator[str]]
    shuffled: bool = False


READERS = {
    "dictd": Reader(read_dictd),
    "docstrings": Reader(read_docstrings, shuffled=True),
    "factbook": Reader(read_factbook),
    "files": Reader(read_files, shuffled=True),
    "gcide_json": Reader(read_gcide_json),
    "manpages": Reader(read_manpages, shuffled=True),
    "mediawiki": Reader(read_mediawiki),
    "metamath": Reader(read_metamath),
    "plays": Reader(read_plays),
    "pythonbible": Reader(read_pythonbible),
    "r_strings": Reader(read_r_strings),
    "scancode": Reader(read_scancode),
    "spdx_bundle": Reader(read_spdx_bundle),
    "sword": Reader(read_sword),
    "tar": Reader(read_tar),
}
