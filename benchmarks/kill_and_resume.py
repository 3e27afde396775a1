"""Kills a training run again and again, lets it resume, and compares it with an undisturbed one.

    python benchmarks/kill_and_resume.py --steps 200 --kills 20 --in-saves 10

Compared, bit by bit, are every scalar of every step (loss, lambda, sparsity, gradient norm, ...), also
of those steps that were done more than once, and the last checkpoints: model, optimizer, random states.
Ends with code 1 if anything differs.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from runs import Run, differing_entries, read_scalars_at_once, resumed_from


def main() -> int:
    """Run, compare, print."""
    args = parse()
    folder = Path(args.folder or tempfile.mkdtemp(prefix="kill_and_resume_"))
    begin = time.monotonic()
    whole = Run(folder / "whole", args)
    whole.start(0)
    whole.wait()
    print(f"undisturbed: {args.steps} steps in {time.monotonic() - begin:.0f} s", flush=True)
    chain = Run(folder / "chain", args, startup=whole.startup)
    disturb(chain, args)
    good = compare(whole, chain, args)
    print(f"{'BIT-EQUAL' if good else 'DIFFERENT'} after {time.monotonic() - begin:.0f} s in all")
    if not args.folder:
        shutil.rmtree(folder)
    return 0 if good else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs in all")
    parser.add_argument("--in-saves", type=int, default=10, help="how many of them during a save")
    parser.add_argument("--at-start", type=int, default=2, help="how many before the first step")
    parser.add_argument("--terms", type=int, default=0, help="SIGTERMs besides")
    parser.add_argument("--save-interval", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--async-save", action="store_true")
    parser.add_argument("--ckpt-format", choices=["torch_dist", "torch"], default="torch_dist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="keep runs and logs here (default: a temporary folder)")
    return parser.parse_args()


def disturb(chain: Run, args: argparse.Namespace) -> None:
    """Start, disturb at rising iterations, and in the end let the run finish."""
    dice = random.Random(args.seed)
    kinds = ["saving"] * args.in_saves + ["starting"] * args.at_start + ["SIGTERM"] * args.terms
    kinds += ["training"] * (args.kills - args.in_saves - args.at_start)
    dice.shuffle(kinds)
    targets = sorted(dice.randrange(1, args.steps - args.save_interval) for _ in kinds)
    print("  # | while    | whom          | at step | goes on from | interrupted a save")
    interrupted = 0
    for i, (kind, target) in enumerate(zip(kinds, targets, strict=True)):
        chain.start(i)
        whom = dice.choice(["all", "first process"]) if kind != "SIGTERM" else "first process"
        chain.wait_for(kind, target, dice)
        chain.strike(kind, whom)
        at, resume = chain.iteration, resumed_from(chain.checkpoints)
        cut = chain.in_a_save()
        interrupted += cut
        note = "yes" if cut else ""
        print(f"{i + 1:3} | {kind:8} | {whom:13} | {at:7} | {resume:12} | {note}", flush=True)
    print(f"{args.kills} SIGKILLs and {args.terms} SIGTERMs, {interrupted} of them in a save")
    chain.start(len(kinds))
    chain.wait()


def compare(whole: Run, chain: Run, args: argparse.Namespace) -> bool:
    """Print and judge what differs."""
    expected = read_scalars_at_once(whole.folder)[0]
    found, repeated, contradicting = read_scalars_at_once(chain.folder)
    wrong = sorted(key for key in expected if found.get(key) != expected[key])
    names = sorted({name for _, name in expected})
    print(f"scalars of each step: {', '.join(names)}")
    print(
        f"{len(expected)} values, {len(wrong)} differ or are missing {wrong[:3]}; {repeated} were "
        f"computed again after a kill, {contradicting} of them differ"
    )
    last = f"iter_{args.steps:07d}"
    count, entries = differing_entries(whole.checkpoints / last, chain.checkpoints / last)
    print(f"last checkpoint: {count} tensors and objects, {len(entries)} differ {entries[:3]}")
    enough = len(expected) >= args.steps * len(names) and count > 0
    return enough and not (wrong or contradicting or entries)


if __name__ == "__main__":
    sys.exit(main())
