"""The same commands on a GPU (`make test-gpu`)."""

import pytest
import torch

from commands import RELU_MOE, pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BF16 = ("--bf16", "--moe-router-dtype", "fp32", "--moe-token-dispatcher-type", "alltoall")


@pytest.mark.parametrize("dispatcher", ["allgather", "alltoall"])
def test_relu_routed_model_trains_on_the_gpu(dispatcher):
    flags = ["--bf16", "--moe-router-dtype", "fp32", "--moe-token-dispatcher-type", dispatcher]
    done = pretrain(*RELU_MOE, *flags, "--train-iters", "3", "--log-throughput")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "> ReMoE: on the CPU" not in done.stdout
    assert "moe_relu_l1_reg_coeff: 1.4400E-08" in done.stdout
    assert " peak-memory-gib: 0." in done.stdout  # of tensors alone: a tiny model's


@pytest.mark.parametrize(
    "words",
    [
        "--moe-grouped-gemm",
        # lambda moves fast, so that the budget is used from some step on.
        "--moe-grouped-gemm --moe-relu-row-budget 2 --moe-relu-l1-reg-coeff-init 0.3 "
        "--moe-relu-l1-reg-coeff-multiplier 1.6 --train-iters 20",
        "--moe-relu-chunk-above 1",
        "--moe-relu-max-active-experts 2 --moe-relu-cap-steps 2",
    ],
)
def test_each_option_trains_on_the_gpu(words):
    done = pretrain(*RELU_MOE, *BF16, "--train-iters", "3", *words.split())
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_distributed_optimizer_goes_on_from_its_checkpoint(tmp_path):
    flags = [*RELU_MOE, *BF16, "--use-distributed-optimizer", "--save", str(tmp_path)]
    flags += ["--load", str(tmp_path), "--save-interval", "2", "--train-iters", "4"]
    for stop in (["--exit-interval", "2"], []):
        done = pretrain(*flags, *stop)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "iteration        4/" in done.stdout
