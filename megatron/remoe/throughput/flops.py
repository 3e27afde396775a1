"""FLOPs of a model by Megatron's own count, at the experts that were active.

`num_floating_point_operations` counts attention (grouped queries; of the scores the causal half), dense
layers, experts at `--moe-router-topk`, shared experts and the output layer; training is three times the
forward pass. Torch's `FlopCounterMode` finds two things more and nothing else: the other half of the
scores, which fused kernels skip, and the router's ``2 h E`` a token and MoE layer.
"""

import copy
from argparse import Namespace

from megatron.training import training


def with_active_experts(args: Namespace, active_experts: float | None) -> Namespace:
    """The arguments as the count should read them.

    Args:
        args: Megatron's; left alone.
        active_experts: Measured experts a token, a mean over MoE layers: the count is linear in it.
            None leaves the nominal k.
    """
    if active_experts is None:
        return args
    args = copy.copy(args)
    args.moe_router_topk = active_experts
    return args


def forward_flops(args: Namespace, num_samples: int, active_experts: float | None) -> float:
    """FLOPs of the forward pass of whole sequences: a third of what Megatron counts for training."""
    count = training.num_floating_point_operations
    count = getattr(count, "remoe_original", count)
    return count(with_active_experts(args, active_experts), num_samples) / 3
