"""Runs of a sweep by a fake recipe: skipped, gone on with, failed, refused, ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch_scripts import REPO

# In the place of `bash`: what the recipe would do, said by the seed.
FAKE_BASH = r"""#!/bin/sh
run=$RUN_ROOT/$PROJECT/$RUN_NAME
echo "start $RUN_NAME $OMP_NUM_THREADS ${TP-unset}" >>"$RUN_ROOT/calls"
case $SEED in
  2) echo "told before: it cannot be"
     echo "E1 torch/distributed/elastic failed (exitcode: 1) noise"
     exit 3 ;;
  7) if [ -e "$run/half" ]; then echo "of the second attempt"; exit 5; fi
     touch "$run/half"; echo "of the first attempt"
     echo "E1 torch/distributed/elastic failed (exitcode: 1) noise"; exit 5 ;;
  3) [ -e "$run/half" ] || { touch "$run/half"; exit 4; } ;;
  6) echo $$ >>"$RUN_ROOT/six"; sleep 5; echo end >>"$RUN_ROOT/six" ;;
  4) sleep 60 & echo $! >"$RUN_ROOT/child"; wait ;;
esac
"""


@pytest.fixture
def sweep(tmp_path):
    def start(seeds, *flags, settings="", **environment):
        (tmp_path / "try.yaml").write_text(
            f"size: nano\nsettings: {{{settings}}}\ngrid: {{method: dense, seed: {seeds}}}\n"
        )
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir(exist_ok=True)
        (bin_folder / "bash").write_text(FAKE_BASH)
        (bin_folder / "bash").chmod(0o755)
        # A link, not an interpreter beside the real bash: its folder comes first on the recipe's PATH.
        path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, REPO / "scripts/sweep.py", tmp_path / "try.yaml"]
        return subprocess.Popen(
            [*map(str, command), "--runs", str(tmp_path / "runs"), *flags],
            env={**os.environ, "PATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def status(tmp_path, seed):
    return json.loads((tmp_path / f"runs/try/dense_x1_s{seed}/status.json").read_text())


def calls(tmp_path):
    return (tmp_path / "runs/calls").read_text().splitlines()


def within(seconds, condition):
    """Whether a condition comes true in time; it is asked again and again."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def has_ended(pid):
    """Whether a process is gone, or waits only for init to ask for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_finished_run_is_told_of_its_origin_and_skipped_the_second_time(sweep, tmp_path):
    assert ended(sweep([1]))[0] == 0
    kept = status(tmp_path, 1)
    assert (kept["state"], kept["attempts"], kept["threads"]) == ("finished", 1, 1)
    assert kept["settings"]["method"] == "dense" and "METHOD=dense" in kept["command"]
    assert {"fingerprint", "commit", "hardware", "date", "wall_seconds"} <= kept.keys()
    code, out, _ = ended(sweep([1]))
    assert code == 0 and "skipped" in out and len(calls(tmp_path)) == 1


def test_a_failed_run_does_not_end_the_others_and_is_told_with_its_log(sweep, tmp_path):
    code, _, err = ended(sweep([2, 1]))
    assert code == 1
    assert (status(tmp_path, 2)["state"], status(tmp_path, 1)["state"]) == ("failed", "finished")
    assert "dense_x1_s2 failed: exit status 3" in err and "told before: it cannot be" in err
    assert "noise" not in err


def test_an_unfinished_run_goes_on_with_the_same_folder(sweep, tmp_path):
    assert ended(sweep([3]))[0] == 1
    code, out, _ = ended(sweep([3]))
    assert code == 0 and "goes on" in out
    assert (status(tmp_path, 3)["state"], status(tmp_path, 3)["attempts"]) == ("finished", 2)


def test_other_settings_under_the_same_name_are_refused_before_anything_starts(sweep, tmp_path):
    assert ended(sweep([1], settings="steps: 10"))[0] == 0
    code, out, err = ended(sweep([5, 1], settings="steps: 20"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and "steps was '10', is '20'" in err
    assert not (tmp_path / "runs/try/dense_x1_s5").exists()


def test_only_the_named_runs_are_trained(sweep, tmp_path):
    assert ended(sweep([1, 5, 6], "--only", "*_s5"))[0] == 0
    assert [call.split()[1] for call in calls(tmp_path)] == ["dense_x1_s5"]
    code, _, err = ended(sweep([1], "--only", "topk*"))
    assert code == 2 and "--only topk*: no such run" in err


def test_a_dry_run_prints_the_commands_and_starts_nothing(sweep, tmp_path):
    code, out, _ = ended(sweep([1, 5], "--dry-run"))
    assert code == 0 and out.count("bash scripts/train_llama_nano.sh") == out.count("\n") == 2
    assert not (tmp_path / "runs").exists()


def test_settings_of_the_callers_shell_do_not_reach_the_recipe(sweep, tmp_path):
    ended(sweep([1], "--threads", "2", TP="2", SEED="2"))
    assert calls(tmp_path) == ["start dense_x1_s1 2 unset"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_children_and_the_run_can_go_on(sweep, tmp_path, number):
    process = sweep([4, 1])
    child = tmp_path / "runs/child"
    assert within(60, lambda: child.exists() and child.read_text().strip())
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 130 and "the same command goes on" in err
    assert status(tmp_path, 4)["state"] == "interrupted"
    assert not (tmp_path / "runs/try/dense_x1_s1").exists()
    assert within(5, lambda: has_ended(child.read_text().strip()))


def test_what_a_killed_sweep_left_running_is_waited_for(sweep, tmp_path):
    log = tmp_path / "runs/six"
    killed = sweep([6])
    assert within(60, log.exists)
    killed.kill()
    killed.communicate()
    code, out, _ = ended(sweep([6]))
    assert code == 0 and "another sweep trains it, waiting" in out
    assert log.read_text().split()[1::2] == ["end", "end"]  # one after the other


def test_a_sweep_that_waits_for_another_ends_at_once_when_it_is_told_to(sweep, tmp_path):
    first = sweep([4])
    assert within(60, (tmp_path / "runs/child").exists)
    second = sweep([4])
    assert "waiting" in second.stdout.readline()
    second.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert ended(second)[0] == 130 and time.monotonic() - began < 10
    assert status(tmp_path, 4)["state"] == "running"
    first.send_signal(signal.SIGINT)
    ended(first)


def test_a_run_that_fails_again_is_told_by_its_last_attempt(sweep, tmp_path):
    assert "of the first attempt" in ended(sweep([7]))[2]
    err = ended(sweep([7]))[2]
    assert "of the second attempt" in err and "of the first attempt" not in err


def test_a_run_whose_folder_cannot_be_made_does_not_end_the_others(sweep, tmp_path):
    (tmp_path / "runs/try/dense_x1_s5").mkdir(parents=True)
    (tmp_path / "runs/try/dense_x1_s5/lock").mkdir()
    code, _, err = ended(sweep([5, 1]))
    assert code == 1 and "dense_x1_s5 failed" in err and "Traceback" not in err
    assert status(tmp_path, 1)["state"] == "finished"


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", "{}", '{"state": "finished"}'])
def test_a_damaged_status_is_one_line_that_costs_no_checkpoint(sweep, tmp_path, text):
    file = tmp_path / "runs/try/dense_x1_s1/status.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    code, out, err = ended(sweep([1]))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{file} is damaged: remove that file" in err


@pytest.mark.parametrize("flag", ["--jobs=1", "--slurm"])
def test_a_place_for_runs_that_is_none_is_one_line(sweep, tmp_path, flag):
    (tmp_path / "runs").write_text("")
    code, _, err = ended(sweep([1], flag))
    assert code == 2 and err.count("\n") == 1 and str(tmp_path / "runs") in err


def test_a_place_with_spaces_is_refused_for_the_recipes_would_cut_it_in_two(sweep, tmp_path):
    code, _, err = ended(sweep([1], "--runs", str(tmp_path / "my runs")))
    assert (code, err.count("\n")) == (2, 1) and "my runs: the recipes take no spaces" in err
