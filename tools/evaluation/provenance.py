"""What a result must say of its origin: command, versions, commit, date."""

import datetime
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path

_PACKAGES = ("lm_eval", "torch", "transformers", "megatron-core", "remoe-megatron")


def describe_run(argv: list[str]) -> dict:
    """Command, versions, commit and date of a run that starts now."""
    return {
        "command": shlex.join(argv),
        "versions": {name: version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version(package: str) -> str | None:
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """This repository's commit, with "-dirty" where files differ from it; None without git."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",  # a tag would stand for it
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def command_line() -> list[str]:
    """The command that started this process."""
    return ["python", *sys.argv]
