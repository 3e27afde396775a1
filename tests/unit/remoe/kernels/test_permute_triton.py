"""The Triton kernels of the permutation, on the CPU in Triton's interpreter.

The interpreter must be chosen before Triton is imported, so the tests run in a process of their own:
all of `test_permute.py`, and below what only kernels have (the blocks they cut their work into).
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HERE = Path(__file__)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.mark.skipif(IS_INTERPRETED, reason="this is that process")
def test_the_interpreted_kernels_pass_the_tests_of_the_op():
    files = [HERE.with_name("test_permute.py"), HERE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", "-p", "no:xdist", *files],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50, "it ran them"


@pytest.mark.skipif(not IS_INTERPRETED, reason="runs in the interpreter's process")
@pytest.mark.parametrize("num_tokens", [1, 8, 21])
def test_blocks_of_any_size_give_the_same(monkeypatch, num_tokens):
    """Up to eleven tiles of two tokens; three programs for the columns of a row."""
    from remoe.kernels import permute_triton as kernels
    from remoe.kernels.permute import permute, permute_reference, unpermute

    monkeypatch.setattr(kernels, "TILE", 16)
    monkeypatch.setattr(kernels, "COLUMNS", 4)
    generator = torch.Generator().manual_seed(num_tokens)
    routing_map = torch.rand(num_tokens, 6, generator=generator) < 0.5
    hidden_states = torch.randn(num_tokens, 11, generator=generator)
    case = hidden_states, routing_map.float(), routing_map, int(routing_map.sum())
    rows, gates, ids = permute(*case)
    expected_rows, expected_gates, expected_ids = permute_reference(*case)
    assert torch.equal(rows, expected_rows) and torch.equal(gates, expected_gates)
    for ours, theirs in zip(ids, expected_ids, strict=True):
        assert torch.equal(ours, theirs)
    counts = routing_map.sum(1, keepdim=True)
    torch.testing.assert_close(unpermute(rows, ids), hidden_states * counts)
