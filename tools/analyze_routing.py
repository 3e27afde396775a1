#!/usr/bin/env python3
"""Says what a run's experts do: on a fixed text, at each of its checkpoints.

python tools/analyze_routing.py runs/remoe runs/topk
python tools/analyze_routing.py exported/ --text data/corpus/*.valid.jsonl --tokens 65536
python tools/analyze_routing.py runs/remoe --steps 500 1500 --records runs/remoe/routing/valid-*.npz

RUN is the folder of a run with `checkpoints` in it, or of checkpoints, or of a Hugging Face model.
Writes RUN/analysis/maps-STEP.npz (which experts each token used) and RUN/analysis/analysis.json (every
figure, with its unit), and prints tables. Maps of the same text, younger than their checkpoint, stay.
"""

import argparse
import os
import sys
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.loading import add_loading_arguments, loading_of
from routing_analysis.runs import Run, find_run


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="+", type=Path, metavar="RUN")
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help='JSON lines with a "text", a file a domain, or a folder of them (default: the text that '
        "the run was validated on)",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=32768,
        metavar="N",
        help="of all domains together, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--sequence-length", type=int, metavar="N", help="default: what the run trained on"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", metavar="STEP", help="checkpoints (default: all)"
    )
    parser.add_argument(
        "--records",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files of --record-routing (default: RUN/routing/*.npz)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write to DIR/NAME instead of RUN/analysis"
    )
    add_loading_arguments(parser)
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, and flags that do not go together."""
    for flag, value in (("--tokens", args.tokens), ("--sequence-length", args.sequence_length)):
        if value is not None and value < 2:
            raise EvaluationError(f"{flag} {value}: must be at least 2")
    if len(args.run) > 1 and args.records:
        raise EvaluationError("--records: files of one run: give one RUN with them")


def check_outputs(runs: list[Run]) -> None:
    """Refuse two runs with one place, and places that cannot be written, before models are run."""
    places: dict[Path, Run] = {}
    for run in runs:
        other = places.setdefault(run.output.resolve(), run)
        if other is not run and other.folder.resolve() == run.folder.resolve():
            raise EvaluationError(f"{run.folder}: this RUN is given twice")
        if other is not run:
            raise EvaluationError(f"--output: two runs are named {run.name}: analyse one at a time")
    for place in places:
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise EvaluationError(f"{there}: cannot be written to; name another folder by --output")


def analyse_all(args: argparse.Namespace) -> None:
    """Find all runs before the first takes its time, then one after the other."""
    runs = [find_run(path, args.steps, args.output) for path in args.run]
    check_outputs(runs)
    from routing_analysis.analysis import Options, analyse
    from routing_analysis.tables import tables

    options = Options(args.text, args.tokens, args.sequence_length, args.records, loading_of(args))
    for run in runs:
        print(f"\n{tables(analyse(run, options))}\nfigures: {run.output / 'analysis.json'}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse_arguments(argv)
    try:
        check_arguments(args)
        analyse_all(args)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"analyze_routing.py: error: {reason}", file=sys.stderr)
        return 1
    except (EvaluationError, ImportError) as error:
        print(f"analyze_routing.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("analyze_routing.py: interrupted; maps that were made stay", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
