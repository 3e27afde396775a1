"""The transformer configuration of a model with one of the routers here."""

from dataclasses import dataclass
from typing import ClassVar

from megatron.core.transformer.transformer_config import TransformerConfig

from remoe.baselines import default_warm_up_experts
from remoe.baselines.hash_table import LOW_32


@dataclass
class BaselineConfig(TransformerConfig):
    """`TransformerConfig` with what these routers need. One field = one flag = one name."""

    moe_routing: str = "expert-choice"
    """Which of them, a key of `routers.ROUTERS`."""

    moe_topk_warmup_experts: int | None = None
    """Experts a token while TopK warms up; None: 3/4 of all."""

    moe_topk_warmup_steps: int = 100
    """The first step that has `moe_router_topk` experts a token."""

    moe_sparsemixer_jitter: float = 0.1
    """r: how far below the largest logit an expert may still be sampled."""

    moe_hash_seed: int = 0
    """Of the tables of hash routing."""

    moe_hash_vocab_size: int | None = None
    """Token ids of the tokenizer, without padding."""

    # What `ReMoELayer` and the memory estimate ask of their configuration; all belong to ReLU routing.
    moe_relu_chunk_above: ClassVar[None] = None
    moe_relu_max_active_experts: ClassVar[None] = None
    moe_relu_row_budget: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Megatron's own checks, then those of this method's options."""
        super().__post_init__()
        topk, num_experts = self.moe_router_topk, self.num_moe_experts
        if not 1 <= topk <= num_experts:
            raise ValueError(
                f"--moe-router-topk {topk}: give a number from 1 to the {num_experts} experts (both "
                "after --moe-granularity)"
            )
        if self.moe_routing == "topk-warmup":
            self._check_warm_up()
        if self.moe_routing == "hash" and not 0 <= self.moe_hash_seed <= LOW_32:
            raise ValueError(
                f"--moe-hash-seed {self.moe_hash_seed}: give a whole number from 0 to {LOW_32}"
            )
        if self.moe_routing == "sparsemixer" and not 0 <= self.moe_sparsemixer_jitter < float(
            "inf"
        ):
            raise ValueError(
                f"--moe-sparsemixer-jitter {self.moe_sparsemixer_jitter:g}: give a number of at least "
                "0 (the paper's code has 0.1)"
            )

    def _check_warm_up(self) -> None:
        topk, num_experts = self.moe_router_topk, self.num_moe_experts
        if self.moe_topk_warmup_experts is None:
            self.moe_topk_warmup_experts = default_warm_up_experts(topk, num_experts)
        if not topk <= self.moe_topk_warmup_experts <= num_experts:
            raise ValueError(
                f"--moe-topk-warmup-experts {self.moe_topk_warmup_experts}: give a whole number from "
                f"--moe-router-topk {topk} to all {num_experts} experts (both after --moe-granularity)"
            )
        if self.moe_topk_warmup_steps < 0:
            raise ValueError(
                f"--moe-topk-warmup-steps {self.moe_topk_warmup_steps}: give a number of at least 0"
            )
