"""Megatron on the CPU, in this process and in the ranks that it starts."""

import pytest
import torch

from harness import World

if torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]  # they run on the CPU: hide the GPUs, CUDA_VISIBLE_DEVICES=
else:
    from megatron.remoe import cpu

    torch.set_num_threads(1)  # tensors are small, and there are more ranks than cores
    cpu.enable()  # before a test module imports megatron.training


@pytest.fixture(scope="session")
def world():
    """Four ranks that stay alive for the session; each imports Megatron once."""
    with World(4) as ranks:
        yield ranks
