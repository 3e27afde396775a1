"""Train every run of a sweep: `python scripts/sweep.py experiments/methods/sweep.yaml --jobs 2`.

A finished run is skipped, an interrupted one goes on from its checkpoint, a failed one is told at the
end. Runs lie in RUNS/FAMILY/RUN: log, status.json, tensorboard, checkpoints.
"""

import argparse
import re
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from sweeping.errors import SweepError
from sweeping.estimation import estimate_table
from sweeping.local import LocalRunner
from sweeping.runs import command_of, shown
from sweeping.slurm import write_scripts
from sweeping.sweep_file import Sweep, read_sweep
from sweeping.vocabulary import REPO


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="the sweep's YAML")
    parser.add_argument(
        "--runs", type=Path, default=REPO / "runs", help="folder of all runs [runs]"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs alone; * and ? fit")
    parser.add_argument("--jobs", type=_positive, default=1, help="runs at a time [1]")
    parser.add_argument("--threads", type=_positive, default=1, help="threads of each run [1]")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, start nothing")
    parser.add_argument(
        "--slurm", action="store_true", help="write a batch script for each run; submit nothing"
    )
    parser.add_argument(
        "--srun", action="store_true", help="start each run by srun, on all nodes of this SLURM job"
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="FLOPs and GPU hours, by the assumptions of the file",
    )
    parser.add_argument(
        "--collect", action="store_true", help="write the table and the figures of what is finished"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="RESULTS.json",
        help="with --collect: exit status 1 where a recorded difference does not come out again",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of --collect [RUNS/FAMILY.tables/SWEEP]"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def main() -> int:
    """Do what the command line says."""
    args = parse_args()
    args.runs = args.runs.resolve()
    try:
        if re.search(r"\s", str(args.runs)):
            raise SweepError(f"--runs {args.runs}: the recipes take no spaces in a path")
        sweep = read_sweep(args.file).only(args.only)
        if args.check and not args.collect:
            raise SweepError("--check: has no effect without --collect")
        if args.dry_run:
            for run in sweep.runs:
                print(shown(command_of(run, args.runs, sweep.family)))
            return 0
        if args.collect:
            return write_tables(sweep, args)
        if args.estimate:
            print(estimate_table(sweep), end="")
            return 0
        if args.slurm:
            for file in write_scripts(sweep, args.file, args.runs):
                print(file)
            return 0
        return train(sweep, args)
    except SweepError as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sweep.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def train(sweep: Sweep, args: argparse.Namespace) -> int:
    """Train what is missing; 1 where a run failed, 130 after Ctrl-C."""
    launcher = ("srun", "--ntasks-per-node=1") if args.srun else ()
    runner = LocalRunner(args.runs, sweep.family, args.jobs, args.threads, launcher)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runner.train(sweep.runs)
    except KeyboardInterrupt:
        print("sweep.py: stopped; the same command goes on", file=sys.stderr)
        return 130
    for name, reason in runner.failed.items():
        print(f"sweep.py: {name} failed: {reason}", file=sys.stderr)
    return 1 if runner.failed else 0


def write_tables(sweep: Sweep, args: argparse.Namespace) -> int:
    """Write results.json, table.csv, table.md and the figures; 1 where a run is missing."""
    from sweeping.check import check
    from sweeping.collection import collect  # tensorboard and scipy take seconds to import
    from sweeping.curves import draw_curves
    from sweeping.figures import draw_all
    from sweeping.table import as_csv, as_json, as_markdown

    folder = args.output or args.runs / f"{sweep.family}.tables" / sweep.name
    if args.check and args.check.resolve() == (folder / "results.json").resolve():
        raise SweepError(f"--check {args.check}: would be written over: name another --output")
    collection = collect(sweep, args.runs)
    verdicts = check(collection, args.check) if args.check else []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(as_json(collection))
    (folder / "table.csv").write_text(as_csv(collection))
    (folder / "table.md").write_text(as_markdown(collection))
    draw_all(collection, folder)
    draw_curves(collection, folder / "loss_curves.png")
    print(as_markdown(collection), end="")
    print(
        f"sweep.py: {folder} has table.md, table.csv, results.json and the figures", file=sys.stderr
    )
    for verdict in verdicts:
        print(verdict.text)
    return 1 if collection.problems or any(v.holds is False for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
