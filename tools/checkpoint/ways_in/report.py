"""Says how a new ReMoE model compares with the one that it was made of."""

import json

from ways_in.measuring import Measured


def describe(before: Measured, after: Measured, sum_errors: list[float]) -> str:
    """Losses before and right after, active experts, and how near the gates are, as lines."""
    errors = " ".join(f"{error:.3f}" for error in sum_errors)
    return f"before: {before}\nafter:  {after}\nerror of the sums of gates by layer: {errors}"


def as_json(before: Measured, after: Measured) -> str:
    """The same as one line of JSON, for scripts."""
    return json.dumps(
        {
            "loss_before": before.loss,
            "loss_after": after.loss,
            "active_experts": after.mean_active,
            "active_experts_by_layer": after.active_experts,
        }
    )
