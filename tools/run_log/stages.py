"""The three stages of ReMoE training in a sparsity curve."""

from dataclasses import dataclass

import numpy as np

from run_log.scalars import RunLog

STAGE_NAMES = ("I", "II", "III")
# Within this of the target the run counts as settled; the paper's stage III holds 0.8751 +/- 0.0061.
SETTLED_WITHIN = 0.02


@dataclass(frozen=True)
class Stages:
    """Iterations at which stages II and III begin; None where a run did not get there.

    Stage I is near-dense (over half of the (token, expert) pairs active), II sparsifies, III holds the
    target. Source: arXiv 2412.14711, section 3.5.
    """

    sparsifying: int | None
    settled: int | None


def find_stages(iterations: np.ndarray, sparsity: np.ndarray, target: float) -> Stages:
    """Find where the stages begin.

    Stage II begins after the last iteration in which half of the pairs or more were active (if the
    target is above one half), III at the first iteration within `SETTLED_WITHIN` of the target.
    """
    near = np.flatnonzero(np.abs(sparsity - target) <= SETTLED_WITHIN)
    settled = int(iterations[near[0]]) if near.size else None
    end = near[0] if near.size else len(sparsity)
    dense = np.flatnonzero(sparsity[:end] <= 0.5)
    after = int(dense[-1]) + 1 if dense.size else 0
    sparsifying = int(iterations[after]) if after < len(iterations) else None
    return Stages(sparsifying, settled)


def stage_spans(run: RunLog) -> list[tuple[str, int, int]]:
    """Name, first and last step of each stage that a run went through; empty without a target.

    Where not every step is logged, the first of a stage is the first one logged in it; the first stage
    begins with the run. A stage of no length is left out: where k is more than half of E there is no
    stage II.
    """
    if run.target_sparsity is None or "moe_relu_sparsity" not in run.curves:
        return []
    steps, sparsity = run.curves["moe_relu_sparsity"]
    stages = find_stages(steps, sparsity, run.target_sparsity)
    first, end = int(steps[0]), int(steps[-1]) + 1
    if len(steps) > 1 and first <= steps[1] - steps[0]:
        first = 1  # the steps before the first logged one
    sparsifying = end if stages.sparsifying is None else stages.sparsifying
    settled = end if stages.settled is None else stages.settled
    bounds = (first, min(sparsifying, settled), settled, end)
    spans = zip(STAGE_NAMES, bounds[:-1], bounds[1:], strict=True)
    return [(name, start, after - 1) for name, start, after in spans if start < after]
