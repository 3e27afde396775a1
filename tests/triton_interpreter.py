"""Tests of Triton kernels on the CPU, in Triton's interpreter.

The interpreter must be chosen before Triton is imported, so such tests run in a process of their own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
from_outside = pytest.mark.skipif(IS_INTERPRETED, reason="this is that process")
inside = pytest.mark.skipif(not IS_INTERPRETED, reason="runs in the interpreter's process")


def num_passed(*files: Path) -> int:
    """Run the tests of files where kernels are interpreted; how many passed, if none failed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:xdist", *files],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return int(re.search(r"(\d+) passed", done.stdout)[1])
