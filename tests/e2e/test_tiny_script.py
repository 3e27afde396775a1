"""The CPU-sized twin of the paper's launch scripts really trains."""

import pytest

from commands import run


@pytest.mark.parametrize(
    ("method", "sign"),
    [("dense", "lm loss"), ("moe", "load_balancing_loss"), ("remoe", "moe_relu_sparsity")],
)
def test_tiny_twin_trains(method, sign, tmp_path):
    done = run(
        ["bash", "scripts/train_llama_tiny.sh", "1", "2", "2"],
        METHOD=method,
        DATA_PATH="mock",
        GLOBAL_BATCH_SIZE="2",
        RUN_ROOT=str(tmp_path),
        LOG_INTERVAL="1",
        EVAL_ITERS="1",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = [line for line in done.stdout.splitlines() if "iteration        2/       2" in line]
    assert last and sign in last[0]
