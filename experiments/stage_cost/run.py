"""What stages I and II cost against TopK over the same steps: `python experiments/stage_cost/run.py`.

Trains TopK and ReMoE with the paper's lambda_0 and alpha on the same text in processes of their own,
one after another, and prints a table: steps, seconds a step and peak memory of each stage, and how many
TopK steps the time beyond TopK's would have paid for. Nothing else should run on the machine.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]

import stages

from sweeping.errors import SweepError
from sweeping.runs import blend_of
from sweeping.statistics import estimate

RELU = (
    "--moe-relu-routing --moe-relu-l1-reg-coeff-init 1e-8 --moe-relu-l1-reg-coeff-multiplier 1.2"
).split()
TOPK = (
    "--moe-router-pre-softmax --moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01"
).split()
DIGITS = {  # of the figures of a stage, in the order of the table's columns
    "steps": 0,
    "active_experts": 2,
    "seconds": 3,
    "seconds_ratio": 2,
    "mib": 0,
    "mib_ratio": 2,
    "extra_topk_steps": 0,
}
HEADER = """\
| E | stage | steps | active experts | s a step | of TopK's | MiB | of TopK's | costs more TopK steps |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Run both sides for each seed and number of experts; print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--data", type=Path, default=ROOT / "data/eight")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    text = text_flags(args.data)
    results = {experts: {} for experts in args.experts}
    for seed in args.seeds:
        for experts, rows_by_seed in results.items():
            shared = [*text, "--seed", str(seed)]
            topk = stages.run([*TOPK, *shared], experts, args.steps)
            relu = stages.run([*RELU, *shared], experts, args.steps)
            rows_by_seed[seed] = rows(topk, relu, experts)
            print(f"E={experts}, seed {seed}: {json.dumps(rows_by_seed[seed])}", flush=True)
            args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(HEADER)
    for experts, rows_by_seed in results.items():
        for line in lines(list(rows_by_seed.values())):
            print(f"| {experts} | {line} |")


def text_flags(folder: Path) -> list[str]:
    """Flags for the domains of a folder in equal parts.

    Args:
        folder: As experiments/families/eight_domains.sh makes it.
    """
    try:
        blend = blend_of(str(folder / "indexed"))
    except SweepError as error:
        sys.exit(f"run.py: {error}: bash experiments/families/eight_domains.sh")
    tokenizer = ["--tokenizer-type", "HuggingFaceTokenizer"]
    tokenizer += ["--tokenizer-model", str(folder / "tokenizer")]
    return ["--data-path", *blend.split(), "--split", "1,0,0", *tokenizer]


def rows(topk: list, relu: list, experts: int) -> dict[str, dict]:
    """Figures of each stage, and of the first two together, beside the same steps of TopK.

    Args:
        topk: ``[loss, None, seconds, bytes]`` of each step.
        relu: ``[loss, sparsity, seconds, bytes]`` of each step.
        experts: ``E``; k is 1.
    """
    step_of_topk = statistics.median(step[2] for step in topk[stages.WARM_UP :])
    parts = stages.stages(relu, experts)
    parts["dense and sparsifying"] = slice(stages.WARM_UP, parts["sparse"].start)
    result = {}
    for name, part in parts.items():
        ours, theirs = relu[part], topk[part]
        if not ours:
            continue
        seconds = sum(step[2] for step in ours)
        result[name] = {
            "steps": len(ours),
            "active_experts": experts * (1 - statistics.mean(step[1] for step in ours)),
            "seconds": seconds / len(ours),
            "seconds_ratio": seconds / sum(step[2] for step in theirs),
            "mib": max(step[3] for step in ours) / stages.MIB,
            "mib_ratio": max(step[3] for step in ours) / max(step[3] for step in theirs),
            "extra_topk_steps": seconds / step_of_topk - len(ours),
        }
    return result


def lines(seeds: list[dict[str, dict]]) -> list[str]:
    """The table's rows: means with standard errors over the seeds that have the stage.

    Args:
        seeds: Of each seed what `rows` gave.
    """
    found = []
    for name in dict.fromkeys(name for stages_of_seed in seeds for name in stages_of_seed):
        figures = [stages_of_seed[name] for stages_of_seed in seeds if name in stages_of_seed]
        cells = [cell([row[key] for row in figures], digits) for key, digits in DIGITS.items()]
        missing = f" ({len(figures)} of {len(seeds)} seeds)" if len(figures) < len(seeds) else ""
        found.append(" | ".join([name + missing, *cells]))
    return found


def cell(values: list[float], digits: int) -> str:
    """Mean ± standard error, without the latter for one value."""
    found = estimate(values)
    error = "" if found.error is None else f" ± {found.error:.{digits}f}"
    return f"{found.mean:.{digits}f}{error}"


if __name__ == "__main__":
    main()
