"""A few lines on how a run went."""

import numpy as np

from run_log.scalars import RunLog
from run_log.stages import find_stages


def summarize(run: RunLog, domains: dict[str, float]) -> str:
    """Losses, validation by domain, sparsity and stages, as aligned text."""
    rows = []
    if "lm loss" in run.curves:
        steps, losses = run.curves["lm loss"]
        rows.append(("training loss", f"{losses[0]:.3f} -> {losses[-1]:.3f} in {steps[-1]} steps"))
    if "lm loss validation" in run.curves:
        _, losses = run.curves["lm loss validation"]
        rows.append(("validation loss", " ".join(f"{loss:.3f}" for loss in losses)))
    for domain, loss in domains.items():
        rows.append((f"  {domain}", f"{loss:.3f}"))
    if domains:
        rows.append(("  mean over domains", f"{sum(domains.values()) / len(domains):.3f}"))
    rows += _routing_rows(run)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _routing_rows(run: RunLog) -> list[tuple[str, str]]:
    if "moe_relu_sparsity" not in run.curves:
        return []
    steps, sparsity = run.curves["moe_relu_sparsity"]
    rows = [("active experts a token", f"{run.last('moe_relu_active_experts'):.2f}")]
    if run.target_sparsity is None:
        return [*rows, ("sparsity", f"{sparsity[-1]:.4f}")]
    stages = find_stages(steps, sparsity, run.target_sparsity)
    if stages.settled is None:
        reached = f"{sparsity[-1]:.4f}, target {run.target_sparsity:.4f} not reached yet"
    else:
        held = np.abs(sparsity[steps >= stages.settled] - run.target_sparsity)
        reached = (
            f"{sparsity[-1]:.4f}, target {run.target_sparsity:.4f} reached at step {stages.settled}, "
            f"then within {held.max():.4f} (mean {held.mean():.4f})"
        )
    return [*rows, ("sparsity", reached)]
