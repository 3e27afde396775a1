"""Damaged checkpoints, a full disk and lost ranks, as the user of the command sees them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from commands import MOCK_DATA, RELU_MOE, ROOT, TINY_MODEL, TRACKER, pretrain, run

SAVING = ["--train-iters", "4", "--save-interval", "2"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run of four steps that stopped after two; `--save` and `--load` are the same folder."""
    root = tmp_path_factory.mktemp("saved") / "run"
    done = pretrain(*RELU_MOE, *SAVING, "--save", str(root), "--exit-interval", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def resume(root):
    return [*RELU_MOE, *SAVING, "--save", str(root), "--load", str(root)]


def refusal(done):
    """The one line that a refused command says, after the warnings of imports."""
    assert done.returncode != 0
    assert "Traceback" not in re.split(r"^E\d{4} |ChildFailedError", done.stderr, flags=re.M)[0]
    lines = [line for line in done.stderr.splitlines() if "pretrain_gpt.py: " in line]
    assert len(lines) == 1, done.stderr[-3000:]
    return lines[0]


def test_an_empty_tracker_file(copy):
    """Megatron ends with code 0 and without a word."""
    (copy / TRACKER).write_text("")
    done = pretrain(*resume(copy))
    assert done.returncode == 2
    assert refusal(done).endswith(
        f"{copy}/{TRACKER}: names no iteration but ''; load the newest good one with --ckpt-step 2"
    )


def test_a_flipped_bit_on_two_ranks(copy):
    """Found once the ranks have met, which then end together."""
    shutil.copytree(copy / "iter_0000002", copy / "iter_0000001")
    data = copy / "iter_0000002" / "__0_0.distcp"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    done = pretrain(*resume(copy), ranks=2)
    assert refusal(done).endswith(
        "__0_0.distcp: damaged: its SHA-256 is not the one in integrity.json; "
        "load the newest good one with --ckpt-step 1"
    )
    assert "loading distributed checkpoint" not in done.stdout


def test_a_full_disk_loses_nothing(copy):
    """No file may grow beyond 2 MB, so that the second save fails."""
    command = [sys.executable, "pretrain_gpt.py", *TINY_MODEL, *MOCK_DATA, *resume(copy)]
    done = run(["bash", "-c", 'ulimit -f 2000; exec "$@"', "-", *command])
    assert done.returncode == 2
    line = refusal(done)
    assert f"{copy}: not saved: writing ended in OSError, see 'Local worker" in line
    assert "Local worker 0 encountered an error: [Errno 27] File too large" in done.stdout
    assert line.endswith("iteration 2 is whole")
    assert (copy / TRACKER).read_text() == "2"


def test_a_killed_rank_ends_the_run(copy):
    """torchrun ends the rest; what was saved before is named and whole."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["pretrain_gpt.py", *TINY_MODEL, *MOCK_DATA, *RELU_MOE, "--save", str(copy)]
    command += ["--train-iters", "100000", "--save-interval", "100000"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for line in process.stdout:
            if " iteration        3/" in line:
                break
        ranks = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
        begin = time.monotonic()
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()  # and with it its ranks
    assert process.returncode != 0 and "Signal 9 (SIGKILL)" in rest
    assert time.monotonic() - begin < 45
    assert (copy / TRACKER).read_text() == "2"
