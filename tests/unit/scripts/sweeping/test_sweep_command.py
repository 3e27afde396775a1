"""The command line of a sweep: what each choice writes and its exit status."""

import json
import subprocess
import sys

import pytest

from launch_scripts import REPO
from sweep_runs import write_run, write_sweep

TEXT = (
    "size: nano\nbaseline: {method: moe}\ngrid: {method: [moe, remoe], seed: [1, 2]}\n"
    "estimate: {tflops_per_gpu: 1}\n"
)


@pytest.fixture
def sweep(tmp_path):
    """Two seeds of TopK and ReMoE, ReMoE ahead by one."""
    found = write_sweep(tmp_path, TEXT)
    for run in found.runs:
        loss = 5.0 + 0.1 * run.seed - (run.settings["method"] == "relu")
        write_run(run, tmp_path / "runs/try" / run.name, [7.0, loss])

    def start(*flags):
        command = [
            REPO / "scripts/sweep.py",
            tmp_path / "try.yaml",
            "--runs",
            tmp_path / "runs",
            *flags,
        ]
        return subprocess.run(
            [sys.executable, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return start


def test_collect_writes_tables_and_figures_and_a_check_against_them_holds(sweep, tmp_path):
    done = sweep("--collect")
    assert (done.returncode, "| ReMoE | 2 | 4.1500 ± 0.0500 | -1.0000" in done.stdout) == (0, True)
    folder = tmp_path / "runs/try.tables/try"
    assert {file.name for file in folder.iterdir()} == {
        "table.md",
        "table.csv",
        "results.json",
        "losses.png",
        "loss_curves.png",
    }
    again = sweep("--collect", "--output", tmp_path / "again", "--check", folder / "results.json")
    assert again.returncode == 0 and "holds" in again.stdout

    recorded = json.loads((folder / "results.json").read_text())
    for row in recorded["table"]:
        if row["difference"]:
            row |= {"difference": 1.0, "difference_low95": 0.9, "difference_high95": 1.1}
    (tmp_path / "other.json").write_text(json.dumps(recorded))
    opposite = sweep(
        "--collect", "--output", tmp_path / "again", "--check", tmp_path / "other.json"
    )
    assert opposite.returncode == 1 and "DOES NOT HOLD" in opposite.stdout


def test_a_check_that_would_not_be_made_is_refused(sweep, tmp_path):
    done = sweep("--check", tmp_path / "results.json")
    assert (done.returncode, "--check: has no effect without --collect" in done.stderr) == (2, True)


def test_recorded_results_are_read_before_anything_is_written(sweep, tmp_path):
    done = sweep("--collect", "--output", tmp_path / "new", "--check", tmp_path / "none.json")
    assert (done.returncode, "none.json: no results of a sweep" in done.stderr) == (2, True)
    assert not (tmp_path / "new").exists() and not done.stdout


def test_recorded_results_are_not_written_over_and_then_compared_with_themselves(sweep, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/results.json").write_text("recorded")
    words = ["--output", tmp_path / "kept", "--check", tmp_path / "kept/../kept/results.json"]
    done = sweep("--collect", *words)
    assert (done.returncode, "would be written over: name another" in done.stderr) == (2, True)
    assert (tmp_path / "kept/results.json").read_text() == "recorded"


def test_a_missing_run_is_told_by_the_exit_status(sweep, tmp_path):
    (tmp_path / "runs/try/relu_E8_k1_G1_s2/status.json").unlink()
    done = sweep("--collect")
    assert done.returncode == 1 and "- relu_E8_k1_G1_s2: missing" in done.stdout


def test_estimate_and_slurm_start_nothing(sweep, tmp_path):
    assert "4 runs, " in sweep("--estimate").stdout
    assert len(sweep("--slurm", "--only", "relu*").stdout.splitlines()) == 3
    assert not (tmp_path / "runs/try/relu_E8_k1_G1_s1/log").exists()


def test_a_wrong_file_is_one_line_on_stderr(sweep, tmp_path):
    (tmp_path / "try.yaml").write_text("size: nano\ngrid: {method: moe, colour: red}\n")
    done = sweep()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(
        f"sweep.py: {tmp_path / 'try.yaml'}: grid: unknown setting 'colour'"
    )
