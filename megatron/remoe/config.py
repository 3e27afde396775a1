"""The transformer configuration of a ReMoE model."""

import math
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

    moe_relu_l1_reg_coeff_warmup_multiplier: float | None = None
    """W >= alpha, the factor until the target sparsity is first reached; None: alpha from the start."""

    moe_relu_restart_l1_reg_coeff: bool = False
    """Start lambda at lambda_0 after a checkpoint was loaded, whether or not it holds one."""

    moe_relu_chunk_above: float | None = None
    """Active experts a token above which experts take the tokens in chunks; None: never."""

    moe_relu_max_active_experts: int | None = None
    """C, the experts that a token visits at most, at step 0; rises to all of them. None: no cap."""

    moe_relu_cap_steps: int | None = None
    """N, the steps that are capped."""

    moe_relu_load_balancing: str = "micro-batch"
    """Tokens whose expert load weighs the regulariser: "micro-batch" (eq. 10) or "none" (eq. 9)."""

    moe_relu_row_budget: float | None = None
    """Rows of a layer as a multiple of the target k T, made without waiting for a count; None: off."""

    moe_relu_router_thresholds: list[float] | None = None
    """Thresholds of the logits, one a layer (0 for a dense one), for evaluation; None: plain ReLU."""

    def __post_init__(self) -> None:
        """Megatron's own checks, then those of what bounds or shortens the dense stage."""
        super().__post_init__()
        self._check_warmup()
        self._check_cap()
        self._check_chunks()
        self._check_row_budget()
        self._check_thresholds()

    def _check_warmup(self) -> None:
        warmup = self.moe_relu_l1_reg_coeff_warmup_multiplier
        alpha = self.moe_relu_l1_reg_coeff_multiplier
        if warmup is not None and not alpha <= warmup < float("inf"):
            raise ValueError(
                f"--moe-relu-l1-reg-coeff-warmup-multiplier {warmup:g}: give a number of at least "
                f"--moe-relu-l1-reg-coeff-multiplier {alpha:g}"
            )

    def _check_cap(self) -> None:
        cap, num_steps = self.moe_relu_max_active_experts, self.moe_relu_cap_steps
        if cap is None:
            if num_steps is not None:
                raise ValueError(
                    f"--moe-relu-cap-steps {num_steps}: has no effect without "
                    "--moe-relu-max-active-experts: give both or none"
                )
            return
        if not self.moe_router_topk <= cap < self.num_moe_experts:
            raise ValueError(
                f"--moe-relu-max-active-experts {cap}: give a whole number from --moe-router-topk "
                f"{self.moe_router_topk} to {self.num_moe_experts - 1}, one less than all experts (both "
                "after --moe-granularity)"
            )
        if num_steps is None or num_steps < 1:
            raise ValueError(
                f"--moe-relu-max-active-experts {cap}: give --moe-relu-cap-steps, the number of steps "
                f"that are capped, at least 1 (it is {num_steps})"
            )

    def _check_chunks(self) -> None:
        if self.moe_relu_chunk_above is None:
            return
        bound = self.moe_relu_chunk_above
        if not 0 < bound < float("inf"):
            raise ValueError(
                f"--moe-relu-chunk-above {bound:g}: give a number above 0 experts a token"
            )
        if self.tensor_model_parallel_size > 1 and not self.sequence_parallel:
            raise ValueError(
                "--moe-relu-chunk-above: tensor parallelism with experts needs --sequence-parallel"
            )
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

    def _check_row_budget(self) -> None:
        budget = self.moe_relu_row_budget
        if budget is None:
            return
        flag = f"--moe-relu-row-budget {budget:g}"
        if not 1.0 <= budget < float("inf"):
            raise ValueError(f"{flag}: give a number of at least 1 (k rows a token are the target)")
        if self.moe_relu_chunk_above is not None:
            raise ValueError(f"{flag}: does not go with --moe-relu-chunk-above: leave one out")
        needed = {
            "--moe-token-dispatcher-type alltoall": self.moe_token_dispatcher_type == "alltoall",
            "--moe-grouped-gemm": self.moe_grouped_gemm,
            "--expert-model-parallel-size 1": self.expert_model_parallel_size == 1,
            "--expert-tensor-parallel-size 1": self.expert_tensor_parallel_size == 1,
        }
        for other, is_set in needed.items():
            if not is_set:
                raise ValueError(f"{flag}: goes with {other} alone: give that, or leave it out")

    def _check_thresholds(self) -> None:
        thresholds = self.moe_relu_router_thresholds
        if thresholds is None:
            return
        flag = "--moe-relu-router-thresholds"
        if len(thresholds) != self.num_layers:
            raise ValueError(
                f"{flag}: {len(thresholds)} values for {self.num_layers} layers: give one a layer, 0 "
                "for a layer without experts"
            )
        if not all(math.isfinite(threshold) for threshold in thresholds):
            raise ValueError(f"{flag} {' '.join(map(str, thresholds))}: give finite numbers")
