"""What the launch scripts refuse, each in one line."""

import subprocess
from pathlib import Path

import pytest

from launch_scripts import DENSE, REMOE, SCRIPTS, dry_run, make_data, refusal


@pytest.mark.parametrize("wrong", ["x", "0", "-1", "1.5", "1e3", "08", "--lr"])
@pytest.mark.parametrize(
    ("position", "what"),
    [
        (1, "GPUs per node"),
        (2, "iterations"),
        (3, "micro batch"),
        (4, "experts"),
        (5, "granularity"),
    ],
)
def test_a_positional_argument_that_is_no_number_is_named(position, what, wrong):
    message = refusal(REMOE, *[""] * (position - 1), wrong)
    assert message == f"argument {position} ({what}) must be a positive integer, got '{wrong}'"


def test_argument_4_of_a_dense_model_is_named_as_what_it_is():
    assert "argument 4 (FFN expansion)" in refusal(DENSE, "", "", "", "x")


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "message"),
    [
        (REMOE, [3], {}, "GLOBAL_BATCH_SIZE=512 is not a multiple of micro batch x data-parallel"),
        (REMOE, [8, "", 128], {}, "= 128 x 8 = 1024: change argument 1"),
        (REMOE, [6], {"TP": "4"}, "6 GPUs are not a multiple of TP x PP x CP = 4 x 1 x 1 = 4"),
        (REMOE, ["", "", "", 6], {"EP": "4"}, "EP=4 does not divide the 6 experts"),
        (REMOE, ["", "", "", "", 5], {}, "granularity) is 5, which does not divide the FFN width"),
        (DENSE, ["", "", "", "", 2], {}, "granularity) is 2, but a dense model has no experts"),
        (REMOE, [], {"TP": "x"}, "TP must be a positive integer, got 'x'"),
        (REMOE, [], {"GLOBAL_BATCH_SIZE": "0"}, "GLOBAL_BATCH_SIZE must be a positive integer"),
        (REMOE, [], {"RECOMPUTE": "all"}, "RECOMPUTE must be none, moe or full, got 'all'"),
        (REMOE, [], {"PRECISION": "fp8"}, "PRECISION must be bf16 or fp32, got 'fp8'"),
        ("train_llama_tiny.sh", [], {"METHOD": "softmax"}, "METHOD must be dense, moe, remoe or"),
    ],
)
def test_what_cannot_work_is_refused_before_torchrun(script, arguments, environment, message):
    assert message in refusal(script, *arguments, **environment)
    assert message in refusal(script, *arguments, DRY_RUN="1", **environment)


def test_experts_are_split_before_they_are_spread():
    assert dry_run(REMOE, "", "", "", 2, 2, EP="4").flags["--num-experts"] == ["2"]


@pytest.mark.parametrize("lost", ["train_text_document.bin", "train_text_document.idx"])
def test_missing_data_is_one_line_that_says_what_to_do(tmp_path, lost):
    make_data(tmp_path)
    (tmp_path / lost).unlink()
    message = refusal(REMOE, DATA_ROOT=str(tmp_path), RUN_ROOT=str(tmp_path / "runs"))
    assert message == (
        f"no data set at {tmp_path}/train_text_document.{{bin,idx}}: "
        "run scripts/prepare_data.sh, or set DATA_PATH or DATA_ROOT"
    )
    assert not (tmp_path / "runs").exists()


def test_the_missing_part_of_a_blend_is_named(tmp_path):
    make_data(tmp_path)
    blend = f"0.7 {tmp_path}/train_text_document 3e-1 {tmp_path}/code"
    assert f"no data set at {tmp_path}/code." in refusal(
        REMOE, DATA_ROOT=str(tmp_path), DATA_PATH=blend
    )


def test_a_missing_tokenizer_is_named(tmp_path):
    make_data(tmp_path)
    (tmp_path / "gpt2_tokenizer").rmdir()
    assert "no tokenizer at" in refusal(REMOE, DATA_ROOT=str(tmp_path))


def test_a_missing_torchrun_is_named(tmp_path):
    make_data(tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname"):
        (tools / tool).symlink_to(Path("/usr/bin") / tool)
    result = subprocess.run(
        ["/bin/bash", SCRIPTS / REMOE],
        env={"PATH": str(tools), "DATA_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "torchrun is not on PATH" in result.stderr
