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

    moe_relu_chunk_above: float | None = None
    """Active experts a token above which experts take the tokens in chunks; None: never."""

    moe_relu_load_balancing: str = "micro-batch"
    """Tokens whose expert load weighs the regulariser: "micro-batch" (eq. 10) or "none" (eq. 9)."""

    def __post_init__(self) -> None:
        """Check that chunks of tokens go with the rest, then Megatron's own."""
        super().__post_init__()
        if self.moe_relu_chunk_above is None:
            return
        if self.moe_relu_chunk_above <= 0:
            raise ValueError("--moe-relu-chunk-above: must be above 0 experts a token")
        with_modules = self.recompute_granularity == "selective"
        refused = {
            "--moe-shared-expert-overlap": self.moe_shared_expert_overlap,
            "--fp8-format": self.fp8,
            "--fp4-format": self.fp4,
            "--moe-latent-size": self.moe_latent_size,
            "--recompute-modules moe": with_modules and "moe" in (self.recompute_modules or ()),
        }
        for flag, is_set in refused.items():
            if is_set:
                raise ValueError(f"--moe-relu-chunk-above: does not go with {flag}: leave one out")
