"""Reads manual pages through groff, one document a page."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path

from corpus.errors import SourceUnavailableError
from corpus.readers.files import list_files

# Plain characters: no overstriking (-P...), lines of 80, no hyphenation (HY).
_GROFF = ["groff", "-t", "-K", "utf8", "-T", "utf8", "-mandoc", "-rLL=80n", "-rHY=0"]
_GROFF += ["-P-c", "-P-b", "-P-u", "-P-o"]
_PAGES_AT_ONCE = 64


def read_manpages(root: Path, sections: str) -> Iterator[str]:
    """Yield the pages under share/man/man<section>, for each digit in `sections`."""
    if shutil.which("groff") is None:
        raise SourceUnavailableError("needs the command groff (Debian: apt-get install groff)")
    patterns = [f"*share/man/man{digit}/*.gz" for digit in sections]
    # Only some are wanted, and groff is slow: batches keep the rest from being formatted.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for paths in batched(list_files(root, patterns), _PAGES_AT_ONCE):
            yield from filter(None, pool.map(_format_page, paths))


def _format_page(path: Path) -> str:
    source = gzip.decompress(path.read_bytes())
    if source.startswith(b".so "):  # only points to another page
        return ""
    environment = {**os.environ, "GROFF_NO_SGR": "1", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(_GROFF, input=source, capture_output=True, env=environment, check=False)
    return result.stdout.decode("utf-8", "replace")
