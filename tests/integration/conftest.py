"""Megatron on the CPU, in this process and in the ranks that it starts."""

import pytest
import torch

from harness import RankLauncher

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
def saved_checkpoints(single_rank, tmp_path_factory):
    """By format: a folder with two checkpoints, to be copied."""
    from checkpoints import save_root

    roots = {}
    for checkpoint_format in ("torch_dist", "torch"):
        roots[checkpoint_format] = tmp_path_factory.mktemp(checkpoint_format) / "root"
        save_root(roots[checkpoint_format], checkpoint_format)
    return roots
