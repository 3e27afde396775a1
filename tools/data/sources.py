"""Turns what the user names with ``--input`` into an ordered list of files of a known format."""

import os
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError

COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".tex")
CODE_SUFFIXES = (
    ".py",
    ".c",
    ".h",
    ".cc",
    ".cpp",
    ".hpp",
    ".go",
    ".rs",
    ".java",
    ".js",
    ".ts",
    ".sh",
)
FORMAT_OF_SUFFIX = {
    ".parquet": "parquet",
    **dict.fromkeys(JSON_SUFFIXES, "json"),
    **dict.fromkeys(TEXT_SUFFIXES + CODE_SUFFIXES, "text"),
}


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: the file.
        format: ``json`` (a document a line), ``parquet`` (a document a row) or ``text`` (a
            document a file).
        compression: one of ``COMPRESSION_SUFFIXES``, or "" for none.
        num_bytes: size on disk, the unit of the progress bar.
    """

    path: str
    format: str
    compression: str
    num_bytes: int


def classify(path: Path) -> Source | None:
    """Reads format and compression off the name of a file; None where the name says neither."""
    suffix, compression = path.suffix.lower(), ""
    if suffix in COMPRESSION_SUFFIXES:
        suffix, compression = Path(path.stem).suffix.lower(), suffix
    file_format = FORMAT_OF_SUFFIX.get(suffix)
    if file_format is None or (file_format == "parquet" and compression):
        return None
    return Source(str(path), file_format, compression, path.stat().st_size)


def find_sources(inputs: list[str]) -> tuple[list[Source], list[str]]:
    """Lists the files behind the inputs, in the order given, folders sorted by path.

    Args:
        inputs: files and folders as the user wrote them.

    Returns:
        The files, and remarks about what was left out of a folder.

    Raises:
        DataError: an input is missing, of an unknown kind, or a folder without usable files.
    """
    sources: list[Source] = []
    remarks: list[str] = []
    for name in inputs:
        path = Path(name)
        try:
            if path.is_dir():
                found, said = _find_in_folder(path)
                sources += found
                remarks += said
            else:
                sources.append(_one_file(path))
        except OSError as error:
            place = error.filename or name  # a folder's broken link names the file
            raise DataError(f"--input {place}: {error.strerror}; check the path") from error
    return sources, remarks


def _one_file(path: Path) -> Source:
    """Classifies a file that was named by the user, who must hear when that fails."""
    source = classify(path)  # a missing file with a known suffix raises OSError in stat()
    if source is None:
        path.stat()
        known = " ".join((*JSON_SUFFIXES, ".parquet", *TEXT_SUFFIXES))
        raise DataError(
            f"--input {path}: unknown extension; known are {known} and source code, all but "
            f"parquet also with {' '.join(COMPRESSION_SUFFIXES)}"
        )
    return source


def _find_in_folder(folder: Path) -> tuple[list[Source], list[str]]:
    """Collects a folder's files, without hidden ones.

    Where there are JSON or parquet files, text files beside them are read-me files rather than
    documents, so they stay out, and a remark says so.
    """
    found, num_unknown = [], 0
    for path in _walk(folder):
        source = classify(path)
        if source is None:
            num_unknown += 1
        else:
            found.append(source)
    if not found:
        raise DataError(f"--input {folder}: the folder holds no file with a known extension")
    structured = [source for source in found if source.format != "text"]
    remarks = []
    if num_unknown:
        remarks.append(f"{folder}: left out {num_unknown} files with unknown extensions")
    if structured and len(structured) < len(found):
        num_text = len(found) - len(structured)
        remarks.append(f"{folder}: left out {num_text} text files beside JSON or parquet files")
    return structured or found, remarks


def _walk(folder: Path) -> list[Path]:
    """Lists the visible files below a folder, sorted so that every machine sees one order."""

    def stop(error: OSError):
        raise error  # os.walk would pass over a folder that it may not read

    paths = []
    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(paths)
