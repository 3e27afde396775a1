"""What `make study` says at its end: repeated, not repeated, or not compared; without any training."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch_scripts import REPO

STUDY = "experiments/methods/study.sh"
# Trains with status 0 unless told, collects with the status of the environment.
SWEEP = """\
import os, sys
print("collects" if "--collect" in sys.argv else "trains")
sys.exit(int(os.environ["COLLECTED" if "--collect" in sys.argv else "TRAINED"]))
"""


@pytest.fixture
def study(tmp_path):
    for name in (STUDY, "experiments/families/eight_domains.sh", "scripts/sweep.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPO / STUDY, tmp_path / STUDY)
    text = 'echo "text in ${DATA-its place}"\n'
    (tmp_path / "experiments/families/eight_domains.sh").write_text(text)
    (tmp_path / "scripts/sweep.py").write_text(SWEEP)

    def start(trained=0, collected=0, **variables):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "TRAINED": str(trained), "COLLECTED": str(collected)}
        command = ["bash", tmp_path / STUDY]
        environment = os.environ | own | variables
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return start


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "the recorded directions come out again"),
        (1, "NOT repeated: a recorded difference does not come out again, or a run is missing"),
        (2, "not compared, see above"),
    ],
)
def test_the_end_says_what_the_comparison_gave(study, status, said):
    done = study(collected=status)
    assert (done.returncode, done.stdout.count("==")) == (status, 4)
    assert f"== {said}" in done.stdout


def test_after_a_failed_run_nothing_is_compared(study):
    done = study(trained=1)
    assert (done.returncode, "collects" in done.stdout) == (1, False)


def test_the_text_is_where_the_sweep_reads_it_whatever_the_shell_has(study):
    assert "text in its place" in study(DATA="/elsewhere").stdout
