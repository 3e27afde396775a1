"""What a built model with a router of this package still needs."""

from megatron.core.transformer.module import MegatronModule
from megatron.core.utils import get_model_config
from megatron.training import get_args

from megatron.remoe.active_expert_cap import steps_that_are_over
from megatron.remoe.patches import count_flops_of_active_experts
from remoe.baselines import topk_at_step

SEES_OTHERS = (
    "> ReMoE: --moe-routing expert-choice: experts choose among all tokens of a micro-batch, also later "
    "ones: losses, in validation too, are not those of a causal model"
)


def install_baseline(model: list[MegatronModule]) -> list[MegatronModule]:
    """Post-wrap hook: count the FLOPs of a warm-up, and say what a reader of the log must know.

    Args:
        model: The pipeline stages of this rank, wrapped. Returned unchanged.
    """
    config, args = get_model_config(model[0]), get_args()
    if config.moe_routing == "topk-warmup":
        count_flops_of_active_experts(
            lambda: topk_at_step(
                config.moe_router_topk,
                config.moe_topk_warmup_experts,
                config.moe_topk_warmup_steps,
                getattr(args, "curr_iteration", steps_that_are_over()),
            )
        )
    if config.moe_routing == "expert-choice" and args.rank == 0:
        print(SEES_OTHERS, flush=True)
    return model
