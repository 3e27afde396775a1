"""Routing methods that ReLU routing is compared with, as pure functions in torch.

One method a file, each with its source: `expert_choice`, `hash_table`, `sparsemixer`, and the
schedule of `topk_warm_up`. What Megatron has (TopK with its losses and its expert bias) is not here.
"""

from remoe.baselines.expert_choice import choose_tokens, expert_capacity
from remoe.baselines.hash_table import balanced_hash_table
from remoe.baselines.sparsemixer import num_draws, sparsemixer_routing
from remoe.baselines.topk_warm_up import default_warm_up_experts, topk_at_step

__all__ = [
    "balanced_hash_table",
    "choose_tokens",
    "default_warm_up_experts",
    "expert_capacity",
    "num_draws",
    "sparsemixer_routing",
    "topk_at_step",
]
