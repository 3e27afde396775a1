"""Megatron on the CPU, in this process and in the ranks that it starts."""

import os
from pathlib import Path

import pytest
import torch

from harness import RankLauncher
from layout_runs import Runs
from layout_table import LayoutTable

if torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]  # they run on the CPU: hide the GPUs, CUDA_VISIBLE_DEVICES=
else:
    from megatron.remoe import cpu

    torch.set_num_threads(1)  # tensors are small, and there are more ranks than cores
    cpu.enable()  # before a test module imports megatron.training


@pytest.fixture(scope="session")
def launcher():
    """Makes worlds of fresh ranks."""
    with RankLauncher() as forks:
        yield forks


@pytest.fixture(scope="session")
def world(launcher):
    """Four ranks."""
    return launcher.ranks(4)


@pytest.fixture(scope="session")
def runs(launcher, tmp_path_factory):
    """Whole runs in layouts, and in one process, from which they start and with which they compare."""
    return Runs(launcher, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def table():
    """What the tests of layouts measured; LAYOUT_TABLE names the file to write it to."""
    measured = LayoutTable()
    yield measured
    if path := os.environ.get("LAYOUT_TABLE"):
        measured.write(Path(path))


@pytest.fixture(scope="session")
def saved_checkpoints(single_rank, tmp_path_factory):
    """By format: a folder with two checkpoints, to be copied."""
    from checkpoints import save_root

    roots = {}
    for checkpoint_format in ("torch_dist", "torch"):
        roots[checkpoint_format] = tmp_path_factory.mktemp(checkpoint_format) / "root"
        save_root(roots[checkpoint_format], checkpoint_format)
    return roots
