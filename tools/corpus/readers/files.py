"""Reads a folder of text files, one document a file, in an order shuffled by name."""

import fnmatch
import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from corpus.readers.html_text import html_to_text
from corpus.readers.markup import markdown_to_text, pod_to_text

_TRANSFORMS = {
    "html": html_to_text,
    "pod": pod_to_text,
    "markdown": markdown_to_text,
}
_HEAD_CHARS = 1000  # where a file says that it was generated


def decode(data: bytes) -> str:
    """Return UTF-8 text, or Latin-1 text where the bytes are no UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_file(path: Path) -> str:
    """Return the text of a file, gunzipped if its name ends in .gz."""
    data = path.read_bytes()
    return decode(gzip.decompress(data) if path.suffix == ".gz" else data)


def list_files(
    root: Path, include: list[str], exclude: str = "", folders: list[str] | None = None
) -> list[Path]:
    """Return the plain files under `root` in an order that depends on their relative names alone.

    Args:
        root: Folder to walk.
        include: Glob patterns; one must match the file's name or its path relative to `root`.
        exclude: Regular expression over "/relative/path"; what matches is left out, and a
            folder whose path matches is not entered.
        folders: Walk only these sub-folders (or single files) of `root`.
    """
    unwanted = re.compile(exclude) if exclude else None
    found = []
    for start in [root / folder for folder in folders] if folders else [root]:
        if start.is_file():
            found.append(start)
        for parent, names, files in os.walk(start):
            relative = Path(parent).relative_to(root).as_posix()
            prefix = "" if relative == "." else f"/{relative}"
            if unwanted:
                names[:] = [n for n in names if not unwanted.search(f"{prefix}/{n}/")]
                files = [f for f in files if not unwanted.search(f"{prefix}/{f}")]
            found += [Path(parent, f) for f in files if _matches(prefix, f, include)]
    found = [path for path in found if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: _name_hash(path.relative_to(root)))


def _matches(prefix: str, name: str, include: list[str]) -> bool:
    path = f"{prefix}/{name}".removeprefix("/")
    return any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(path, p) for p in include)


def _name_hash(relative: Path) -> tuple[str, str]:
    name = relative.as_posix()
    return hashlib.sha1(name.encode("utf-8", "replace"), usedforsecurity=False).hexdigest(), name


def read_files(
    root: Path,
    include: list[str],
    exclude: str = "",
    folders: list[str] | None = None,
    transform: str = "",
    skip_heads: str = "",
) -> Iterator[str]:
    """Yield the text of each file.

    Args:
        root: Folder of the unpacked package.
        include: As for `list_files`.
        exclude: As for `list_files`.
        folders: As for `list_files`.
        transform: Name of the markup to strip: html, pod or markdown.
        skip_heads: Regular expression; a file whose first 1000 characters match is left out.
    """
    for path in list_files(root, include, exclude, folders):
        text = read_file(path)
        if skip_heads and re.search(skip_heads, text[:_HEAD_CHARS]):
            continue
        yield _TRANSFORMS[transform](text) if transform else text
