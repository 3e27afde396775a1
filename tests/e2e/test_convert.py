"""`tools/checkpoint/convert.py` as a user runs it: killed and started again, and trained on with."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from commands import MOCK_DATA, RELU_MOE, ROOT, run
from forked_commands import pretrain_each
from saved_runs import FAST, TRAINING

CONVERT = [sys.executable, "tools/checkpoint/convert.py"]


@pytest.fixture(scope="module")
def converted(saved_runs, tmp_path_factory):
    """A ReMoE model in Hugging Face form, the first conversion killed, and back."""
    folder = tmp_path_factory.mktemp("converted")
    command = [*CONVERT, "--to", "hf", "--input", str(saved_runs / "remoe"), "--output"]
    command += [str(folder / "hf"), "--max-shard-size", "20000"]
    killed = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    while killed.poll() is None and len(shards(folder / "hf.partial")) < 3:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = shards(folder / "hf.partial")
    first = run(command)
    assert first.returncode == 0, first.stderr
    back = run(
        [
            *CONVERT,
            "--to",
            "megatron",
            "--input",
            str(folder / "hf"),
            "--output",
            str(folder / "back"),
        ]
    )
    assert back.returncode == 0, back.stderr
    return folder, before, first, back


def shards(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("model-*.safetensors")}


def test_killed_and_started_again_it_goes_on(converted):
    folder, before, *_ = converted
    assert before
    assert before.items() <= shards(folder / "hf").items()
    assert sorted(os.listdir(folder)) == ["back", "hf"]


def test_it_shows_progress_and_ends_with_the_largest_difference(converted):
    _, _, *runs = converted
    for done in runs:
        assert "100%" in done.stderr
        found = re.search(r"largest difference (\S+), tolerance 0\.0001", done.stderr)
        assert float(found[1]) < 1e-4
        assert done.stdout.endswith(": converted\n")


def test_wrong_input_is_one_line_and_exit_code_1(tmp_path):
    done = run(
        [
            *CONVERT,
            "--to",
            "megatron",
            "--input",
            str(tmp_path / "no"),
            "--output",
            str(tmp_path / "out"),
        ]
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("convert.py: ")]
    assert line.endswith("there is no such folder")
    assert "Traceback" not in done.stderr


def test_training_goes_on_as_from_the_checkpoint_that_was_converted(converted, saved_runs):
    """Losses and lambdas of two steps: from the original, and from what came back, by the checkpoint's
    own settings and by an explicit command line."""
    folder, *_ = converted
    steps = ["--train-iters", "2"]
    ours = ["--load", folder / "back"]
    theirs = ["--load", saved_runs / "remoe", "--finetune"]
    explicit = pretrain_each([*RELU_MOE, *FAST, *steps, *theirs], [*RELU_MOE, *FAST, *steps, *ours])
    stored = pretrain_each(
        [*TRAINING, *MOCK_DATA, *steps, *ours, "--use-checkpoint-args"], model=()
    )
    figures = [figures_of(done) for done in (*explicit, *stored)]
    assert len(figures[0]) == 2
    assert figures[0] == figures[1] == figures[2]


def figures_of(done):
    assert done.returncode == 0, done.stderr[-2000:]
    return re.findall(r"lm loss: (\S+) .*moe_relu_l1_reg_coeff: (\S+)", done.stdout)
