"""The transformer configuration of a ReMoE model."""

from dataclasses import dataclass

from megatron.core.transformer.transformer_config import TransformerConfig


@dataclass
class ReMoETransformerConfig(TransformerConfig):
    """`TransformerConfig` with ReLU routing. One field = one flag = one name.

    `moe_router_topk` keeps its name and becomes the *target* number of active experts a token.
    """

    moe_relu_l1_reg_coeff_init: float = 1e-8
    """lambda_0, the coefficient of the L1 regulariser at the first step."""

    moe_relu_l1_reg_coeff_multiplier: float = 1.2
    """alpha, the factor by which the coefficient moves each step."""

    moe_relu_restart_l1_reg_coeff: bool = False
    """Start lambda at lambda_0 after a checkpoint was loaded, whether or not it holds one."""

    moe_relu_load_balancing: str = "micro-batch"
    """Tokens whose expert load weighs the regulariser: "micro-batch" (eq. 10) or "none" (eq. 9)."""
