"""A run that is killed and resumed again and again ends like one that was left alone."""

import sys

from commands import run


def test_a_killed_and_resumed_run_equals_an_undisturbed_one():
    """The small size of benchmarks/kill_and_resume.py: every scalar, tensor and random state."""
    script = [
        sys.executable,
        "benchmarks/kill_and_resume.py",
        "--steps",
        "12",
        "--save-interval",
        "4",
    ]
    done = run([*script, "--kills", "2", "--in-saves", "1", "--at-start", "0", "--terms", "1"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "BIT-EQUAL" in done.stdout
    for kind in ("saving", "training", "SIGTERM"):
        assert f"| {kind:8} |" in done.stdout
