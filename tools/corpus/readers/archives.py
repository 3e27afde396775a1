"""Reads source files straight out of a tar archive that a package carries."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from corpus.errors import SourceUnavailableError
from corpus.readers.files import decode


def read_tar(root: Path, archive: str, wanted: str) -> Iterator[str]:
    """Yield the members of the archive matching the glob `archive` whose names match `wanted`."""
    path = next(iter(sorted(root.glob(archive))), None)
    if path is None:
        raise SourceUnavailableError(f"the package holds no {archive}")
    pattern = re.compile(wanted)
    with tarfile.open(path, "r|*") as tar:
        for member in tar:
            if member.isfile() and pattern.search(member.name):
                yield decode(tar.extractfile(member).read())
