"""The same commands on a GPU (`make test-gpu`)."""

import pytest
import torch

from commands import RELU_MOE, pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dispatcher", ["allgather", "alltoall"])
def test_relu_routed_model_trains_on_the_gpu(dispatcher):
    flags = ["--bf16", "--moe-router-dtype", "fp32", "--moe-token-dispatcher-type", dispatcher]
    done = pretrain(*RELU_MOE, *flags, "--train-iters", "3", "--log-throughput")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "> ReMoE: on the CPU" not in done.stdout
    assert "moe_relu_l1_reg_coeff: 1.4400E-08" in done.stdout
    assert " peak-memory-gib: 0." in done.stdout  # of tensors alone: a tiny model's
