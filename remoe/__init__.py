"""ReMoE: fully differentiable mixture-of-experts with ReLU routing (arXiv 2412.14711).

The method alone, in torch alone. Whoever has read the paper finds each equation here once:

=====================  ==========================================  ==================
equation               what                                        where
=====================  ==========================================  ==================
(1), (5)               MoE layer, ReLU routing                     `routing`, `reference`
(7)                    controller of lambda                        `controller`
(8)                    sparsity                                    `sparsity`
(9), (10), (11)        L1 regulariser, plain and load-balanced     `regularization`
(5), (8) to (11)       routing with its sums in one pass           `kernels`
beyond the paper       bound on a token's experts, faster start    `cap`, `controller`
=====================  ==========================================  ==================

`megatron.remoe` puts them into Megatron-Core's slots; nothing here imports Megatron.
"""

from remoe.cap import cap_active_experts, cap_at_step
from remoe.controller import update_reg_coeff, warm_up_reg_coeff
from remoe.kernels.relu_router import relu_router
from remoe.regularization import expert_load, l1_loss, l1_loss_of_sums
from remoe.routing import relu_routing
from remoe.sparsity import routing_counts, sparsity, target_sparsity
from remoe.state import RoutingState

__version__ = "0.1.0"

__all__ = [
    "RoutingState",
    "cap_active_experts",
    "cap_at_step",
    "expert_load",
    "l1_loss",
    "l1_loss_of_sums",
    "relu_router",
    "relu_routing",
    "routing_counts",
    "sparsity",
    "target_sparsity",
    "update_reg_coeff",
    "warm_up_reg_coeff",
]
