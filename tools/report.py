"""One HTML page that shows a run, or several beside each other: `python tools/report.py RUN...`.

Reads what is there under each RUN: tensorboard events (`pretrain_gpt.py --tensorboard-dir`), RUN/routing
(`--record-routing RUN/routing`) and RUN/analysis (`tools/analyze_routing.py RUN`). The page needs
nothing beside itself and no network; its pictures are saved in a folder beside it, too.
"""

import argparse
import os
import sys
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.plan import parse_models
from reporting.page import sections, write
from reporting.parts import Missing
from reporting.runs import read_run
from run_log.scalars import RunLogError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", nargs="+", metavar="[NAME=]RUN", help="folder of a training run")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.html", help="default, for one run: RUN/report.html"
    )
    parser.add_argument("--title", help="title of the page; default: the names of the runs")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="Hugging Face tokenizer, to show text; default: the one each run was trained with",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Read, draw, write, say where the page is."""
    args = parse_args(argv)
    try:
        folders = parse_models(args.run, "RUN")
        output = _output(args.output, list(folders.values()))
        runs = [read_run(name, folder) for name, folder in folders.items()]
        parts = sections(runs, args.tokenizer)
    except (RunLogError, EvaluationError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot read {error.filename}: {error.strerror}")
    try:
        pictures = write(parts, runs, args.title or f"Report: {', '.join(folders)}", output)
    except OSError as error:
        return _refuse(
            f"cannot write {error.filename}: {error.strerror}; name another file by --output"
        )
    for part in parts:
        if isinstance(part, Missing):
            print(f"left out: {part.title}; {' or '.join(part.commands)} adds it")
    print(f"pictures: {pictures}\nreport: {output}")
    return 0


def _refuse(message: str) -> int:
    print(f"report.py: {message}", file=sys.stderr)
    return 1


def _output(asked: Path | None, folders: list[Path]) -> Path:
    if asked is None:
        if len(folders) > 1:
            raise RunLogError("--output: say which file the page of several runs goes to")
        return folders[0] / "report.html"
    if asked.suffix.lower() not in (".html", ".htm"):
        raise RunLogError(f"--output {asked}: end it in .html")
    if asked.is_dir():
        raise RunLogError(f"--output {asked}: is a folder; name a file")
    there = next(folder for folder in asked.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RunLogError(f"--output {asked}: cannot write to {there}; name another file")
    return asked


if __name__ == "__main__":
    sys.exit(main())
