"""What stages I and II cost against TopK over the same steps: `python experiments/stage_cost/run.py`.

Trains TopK and ReMoE with the paper's lambda_0 and alpha in processes of their own, one after another,
and prints a table: steps, seconds a step and peak memory of each stage, and how many TopK steps the time
beyond TopK's would have paid for. Nothing else should run on the machine.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

import stages

RELU = (
    "--moe-relu-routing --moe-relu-l1-reg-coeff-init 1e-8 --moe-relu-l1-reg-coeff-multiplier 1.2"
).split()
TOPK = (
    "--moe-router-pre-softmax --moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01"
).split()
HEADER = """\
| E | stage | steps | active experts | s a step | of TopK's | MiB | of TopK's | costs more TopK steps |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Run both sides for each number of experts; print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    results = {}
    print(HEADER, flush=True)
    for experts in args.experts:
        topk = stages.run(TOPK, experts, args.steps)
        relu = stages.run(RELU, experts, args.steps)
        results[experts] = rows(topk, relu, experts)
        for name, row in results[experts].items():
            print(f"| {experts} | {name} | {line(row)} |", flush=True)
    args.output.write_text(json.dumps(results, indent=1) + "\n")


def rows(topk: list, relu: list, experts: int) -> dict[str, dict]:
    """Figures of each stage, beside the same steps of TopK.

    Args:
        topk: ``[loss, None, seconds, bytes]`` of each step.
        relu: ``[loss, sparsity, seconds, bytes]`` of each step.
        experts: ``E``; k is 1.
    """
    step_of_topk = statistics.median(step[2] for step in topk[stages.WARM_UP :])
    result = {}
    for name, part in stages.stages(relu, experts).items():
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


def line(row: dict) -> str:
    """The cells of a row."""
    return (
        f"{row['steps']} | {row['active_experts']:.2f} | {row['seconds']:.3f} | "
        f"{row['seconds_ratio']:.2f} | {row['mib']:.0f} | {row['mib_ratio']:.2f} | "
        f"{row['extra_topk_steps']:.0f}"
    )


if __name__ == "__main__":
    main()
