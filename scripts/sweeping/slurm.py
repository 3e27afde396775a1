"""Writes SLURM batch scripts for the runs of a sweep; nothing is submitted.

Each script starts `sweep.py` for its one run, so that a job which is requeued or submitted again goes
on, and one whose run is finished ends at once.
"""

import re
import shlex
from pathlib import Path

from sweeping.errors import SweepError
from sweeping.runs import Run
from sweeping.sweep_file import Sweep
from sweeping.vocabulary import REPO

# What the YAML may say of a job, and what it is if it does not.
DEFAULTS = {
    "nodes": 1,
    "time": "24:00:00",
    "cpus_per_task": None,
    "partition": None,
    "account": None,
    "qos": None,
    "constraint": None,
    "setup": f'PATH="{REPO}/.venv/bin:$PATH"',
}
STOP_AHEAD_S = 120  # SLURM's signal before the time is over; the batch script passes it on


def write_scripts(sweep: Sweep, file: Path, runs_root: Path) -> list[Path]:
    """Write RUNS/FAMILY.slurm/SWEEP/RUN.sbatch for each run, and submit.sh that hands them all in.

    Args:
        sweep: The sweep.
        file: Its YAML.
        runs_root: Folder of all runs.

    Raises:
        SweepError: `slurm` in the YAML has an unknown key, or a value of another type.
    """
    job = _checked(sweep.slurm, file)
    folder = runs_root / f"{sweep.family}.slurm" / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for run in sweep.runs:
        (runs_root / sweep.family / run.name).mkdir(parents=True, exist_ok=True)  # for its job.log
        script = folder / f"{run.name}.sbatch"
        script.write_text(
            batch_script(run, job, file, runs_root, runs_root / sweep.family / run.name)
        )
        written.append(script)
    submit = folder / "submit.sh"
    names = " ".join(shlex.quote(script.name) for script in written)
    submit.write_text(
        "#!/usr/bin/env bash\n# Hands in every run; a job whose run is finished ends at once.\n"
        'set -euo pipefail\ncd "$(dirname -- "${BASH_SOURCE[0]}")"\n'
        f'for script in {names}; do\n  sbatch "$script"\ndone\n'
    )
    submit.chmod(0o755)
    return [*written, submit]


def batch_script(run: Run, job: dict, file: Path, runs_root: Path, folder: Path) -> str:
    """The text of one batch script."""
    directives = {
        "job-name": run.name,
        "output": folder / "job.log",
        "open-mode": "append",
        "nodes": job["nodes"],
        "ntasks-per-node": 1,
        "gpus-per-node": run.gpus_per_node,
        "cpus-per-task": job["cpus_per_task"],
        "time": job["time"],
        "partition": job["partition"],
        "account": job["account"],
        "qos": job["qos"],
        "constraint": job["constraint"],
        "requeue": "",
        "signal": f"B:TERM@{STOP_AHEAD_S}",
    }
    lines = ["#!/usr/bin/env bash"]
    for name, value in directives.items():
        if value is not None:
            lines.append(f"#SBATCH --{name}" + (f"={value}" if value != "" else ""))
    sweep = shlex.join(
        [
            "scripts/sweep.py",
            str(file.resolve()),
            "--runs",
            str(runs_root),
            "--only",
            run.name,
            "--srun",
        ]
    )
    lines += [
        "set -euo pipefail",
        f"cd {shlex.quote(str(REPO))}",
        job["setup"],
        f"exec python {sweep}  # goes on from the last checkpoint; gets SLURM's signal itself",
    ]
    return "\n".join(lines) + "\n"


def _checked(given: dict, file: Path) -> dict:
    for key, value in given.items():
        if key not in DEFAULTS:
            raise SweepError(f"{file}: slurm: unknown key {key!r}; known are {', '.join(DEFAULTS)}")
        number = isinstance(DEFAULTS[key], int) or key == "cpus_per_task"
        if number and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise SweepError(f"{file}: slurm: {key} must be a positive integer, got {value!r}")
        if not number and (not isinstance(value, str) or not value):
            raise SweepError(f"{file}: slurm: {key} must be a text in quotes, got {value!r}")
        if not number and key != "setup" and re.search(r"\s", value):  # setup may have lines
            raise SweepError(f"{file}: slurm: {key} must be one word, got {value!r}")
    return DEFAULTS | given
