"""Thresholds that give a ReMoE model another mean of active experts."""

import torch
from torch import Tensor, nn

from remoe.calibration import threshold_for_active_experts
from ways_in.measuring import record_inputs, routers_of

# What a layer drops changes what the next ones see, so the threshold is found anew on the changed model.
NUM_ROUNDS = 4


def set_thresholds(model: nn.Module, thresholds: list[float]) -> None:
    """Let a ReMoE model route by thresholds, and its configuration say so.

    Args:
        model: ReMoE model.
        thresholds: One a layer with experts.
    """
    by_layer, rest = [], iter(thresholds)
    for layer in range(model.config.num_hidden_layers):
        by_layer.append(next(rest) if model.config.has_experts(layer) else 0.0)
    model.config.router_thresholds = by_layer
    for router, threshold in zip(routers_of(model), thresholds, strict=True):
        router.threshold = threshold


def find_thresholds(
    model: nn.Module, sequences: Tensor, active: float, shares: str = "one"
) -> list[float]:
    """Find the thresholds at which a mean of `active` experts a token are above them, and set them.

    Args:
        model: ReMoE model in evaluation mode.
        sequences: To calibrate on, ``[num_sequences, sequence_length]``.
        active: Mean active experts a token, over the layers with experts.
        shares: "one": the same threshold for all layers, so that each keeps its own share of experts;
            "even": every layer has `active`.

    Returns:
        One threshold a layer with experts.
    """
    routers = routers_of(model)
    set_thresholds(model, [0.0] * len(routers))
    for _ in range(NUM_ROUNDS):
        logits = [
            hidden_states @ router.weight.detach().float().cpu().T
            for router, hidden_states in zip(
                routers, record_inputs(model, routers, sequences), strict=True
            )
        ]
        if shares == "even":
            thresholds = [threshold_for_active_experts(each, active) for each in logits]
        else:
            thresholds = [threshold_for_active_experts(torch.cat(logits), active)] * len(logits)
        set_thresholds(model, thresholds)
    return thresholds
