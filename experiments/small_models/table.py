"""The results of the small models as Markdown."""

import statistics


def markdown_table(report: dict) -> str:
    """Validation losses with standard errors, paired differences, and how sparsity held."""
    results = report["results"]
    return "\n\n".join([_losses(results), _differences(results), _sparsity(results)])


def _final(runs: dict[str, dict]) -> dict[str, float]:
    """Validation loss after the last step, by seed."""
    return {seed: list(run["validation"].values())[-1] for seed, run in runs.items()}


def _mean(values: list[float]) -> str:
    """Mean and standard error."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.4f} ± {error:.4f}"


def _losses(results: dict) -> str:
    steps = list(next(iter(next(iter(results.values())).values()))["validation"])
    rows = ["| model | seeds | " + " | ".join(f"step {s}" for s in steps) + " |"]
    rows.append("|---|---|" + "---|" * len(steps))
    for name, runs in results.items():
        columns = [_mean([run["validation"][s] for run in runs.values()]) for s in steps]
        rows.append(f"| {name} | {len(runs)} | " + " | ".join(columns) + " |")
    return "\n".join(rows)


def _differences(results: dict) -> str:
    """ReMoE minus the others, seed by seed."""
    remoe = _final(results["ReMoE E=8 k=1"])
    rows = ["| ReMoE E=8 k=1 minus | " + " | ".join(f"seed {s}" for s in remoe) + " | mean |"]
    rows.append("|---|" + "---|" * (len(remoe) + 1))
    for name in ("TopK E=8 k=1", "dense"):
        other = _final(results[name])
        gaps = [remoe[seed] - other[seed] for seed in remoe]
        cells = " | ".join(f"{gap:+.4f}" for gap in gaps)
        rows.append(f"| {name} | {cells} | {_mean(gaps)} |")
    return "\n".join(rows)


def _sparsity(results: dict) -> str:
    rows = [
        "| model, seed | target | reached at step | mean distance after | steps within 0.02 | "
        "largest distance | of a 20-step mean | dead experts at the end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        for seed, run in runs.items():
            if run.get("settled") is None:
                continue
            distances = [run[f"{kind}_distance"] for kind in ("mean", "max")]
            rows.append(
                f"| {name}, {seed} | {run['target']:.4f} | {run['settled']} | {distances[0]:.4f} | "
                f"{run['within_0.02']:.0%} | {distances[1]:.4f} | "
                f"{run['max_distance_of_20_step_mean']:.4f} | {run['dead_experts']:.0f} |"
            )
    return "\n".join(rows)
