"""`pretrain_gpt.py` trains every kind of model, and says what is wrong in one message."""

from pathlib import Path

import numpy as np
import pytest

from commands import RELU_MOE, pretrain

TOPK_MOE = (
    "--num-experts 8 --moe-router-topk 1 --moe-router-pre-softmax "
    "--moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01"
).split()


def test_relu_routed_model_trains_and_logs_its_routing():
    done = pretrain(*RELU_MOE, "--train-iters", "3", "--log-throughput")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "> ReMoE: on the CPU, no CUDA device found" in done.stdout
    last = next(line for line in done.stdout.splitlines() if "iteration        3/" in line)
    for name in (
        "moe_relu_sparsity: 0.",
        "moe_relu_l1_reg_coeff: 1.4400E-08",  # 1e-8 * 1.2^2: two steps were taken before
        "moe_relu_l1_reg_loss: ",
        "moe_relu_active_experts: ",
        "moe_relu_dead_experts: 0",
        "moe_relu_tokens_without_expert: ",
        "throughput per GPU",
    ):
        assert name in last
    assert "validation loss at iteration 3" in done.stdout


@pytest.mark.parametrize("flags", [[], TOPK_MOE], ids=["dense", "topk"])
def test_baselines_train_without_a_trace_of_relu_routing(flags):
    done = pretrain(*flags, "--train-iters", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "iteration        2/" in done.stdout
    assert "moe_relu_sparsity" not in done.stdout.split("before the start of training step")[1]


@pytest.mark.parametrize(
    "flags",
    [
        "--expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall",
        "--pipeline-model-parallel-size 2 --moe-token-dispatcher-type allgather --bf16",
    ],
    ids=["ep2-alltoall", "pp2-allgather-bf16"],
)
def test_relu_routed_model_trains_on_two_ranks(flags):
    done = pretrain(*RELU_MOE, *flags.split(), "--train-iters", "2", ranks=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "moe_relu_l1_reg_coeff: 1.2000E-08" in done.stdout


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            [*RELU_MOE, "--moe-expert-capacity-factor", "1", "--moe-router-num-groups", "2"],
            ["--moe-expert-capacity-factor: ", "--moe-router-num-groups: ", "leave it out"],
        ),
        (
            [*RELU_MOE, "--transformer-impl", "transformer_engine"],
            ["--transformer-impl: needs ", "leave it out"],
        ),
        (
            ["--data-path", "no/such_text_document"],
            ["no/such_text_document.idx", "tools/preprocess_data.py"],
        ),
        (["--save", "no/folder"], ["--save: needs --save-interval"]),
        (["--tensorboard-dir", "README.md/x"], ["--tensorboard-dir README.md/x: cannot write to "]),
        (["--sft"], ["--sft: pretrain_gpt.py here does not carry it out"]),
        (
            [*RELU_MOE, "--moe-granularity", "3"],
            ["--moe-granularity 3: does not divide the expert width 128"],
        ),
    ],
    ids=["conflicts", "gpu-only", "no-data", "save", "unwritable", "not-here", "granularity"],
)
def test_bad_input_ends_in_one_message_without_traceback(flags, expected):
    done = pretrain(*flags, "--train-iters", "1")
    assert done.returncode == 2
    for text in expected:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def make_data(folder):
    """Ten documents of a hundred tokens; returns their prefix."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    prefix = str(folder / "ten_text_document")
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(512))
    for _ in range(10):
        builder.add_document(np.arange(100), [100])
    builder.finalize(f"{prefix}.idx")
    return prefix


@pytest.mark.parametrize("ending", [".idx", ".bin"])
def test_damaged_data_is_named(tmp_path, ending):
    prefix = make_data(tmp_path)
    file = Path(prefix + ending)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    data = ["--data-path", prefix, "--tokenizer-type", "NullTokenizer", "--vocab-size", "512"]
    done = pretrain(*data, "--split", "50,50,0", "--train-iters", "1")
    assert done.returncode == 2
    line = next(x for x in done.stderr.splitlines() if x.startswith("pretrain_gpt.py: "))
    assert f"{prefix}{ending}" in line
    assert "write it again with tools/preprocess_data.py" in line


def test_a_split_that_leaves_a_part_without_documents_is_refused_not_endless(tmp_path):
    prefix = make_data(tmp_path)
    data = ["--data-path", prefix, "--tokenizer-type", "NullTokenizer", "--vocab-size", "512"]
    done = pretrain(*data, "--split", "969,30,1", "--train-iters", "1")
    assert done.returncode == 2
    assert (
        "no document for valid data: --split 969,30,1 gives it none of the 10 documents"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
