"""The once-a-step part of ReMoE: sum the counters over all ranks, move lambda, after a real step."""

from collections.abc import Callable

import torch
from megatron.core.distributed.finalize_model_grads import finalize_model_grads
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe.moe_logging import set_moe_metrics_tracker
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.utils import get_model_config
from megatron.training import get_args
from torch import Tensor

from megatron.remoe.metrics import ReMoEMetricsTracker, RoutingStats
from megatron.remoe.optimizer_steps import OptimizerSteps
from megatron.remoe.patches import count_flops_of_active_experts, wrap_training_steps
from megatron.remoe.router import ReLURouter
from megatron.remoe.row_budget import RowBudgetRunner
from remoe import target_sparsity, update_reg_coeff, warm_up_reg_coeff


def install_step_hook(model: list[MegatronModule]) -> list[MegatronModule]:
    """Post-wrap hook: hang the controller, the metrics and the FLOP count on a built model.

    Args:
        model: The pipeline stages of this rank, wrapped. Returned unchanged.
    """
    config, args = get_model_config(model[0]), get_args()
    for module in (m for stage in model for m in stage.modules()):
        if isinstance(module, TopKRouter) and not isinstance(module, ReLURouter):
            raise ValueError(
                f"layer {module.layer_number} has a TopK router: its spec is unknown here"
            )
    hook = ReMoEStepHook(model, config)
    config.finalize_model_grads_func = hook
    set_moe_metrics_tracker(
        ReMoEMetricsTracker(hook, args.log_interval, args.tensorboard_log_interval)
    )
    count_flops_of_active_experts(lambda: hook.mean_active_experts)
    if config.moe_relu_row_budget is not None:
        wrap_training_steps(RowBudgetRunner)
    return model


class ReMoEStepHook:
    """`config.finalize_model_grads_func`: Megatron's own, then the controller's step.

    Called once for each forward-backward of a global batch, on every rank, never in evaluation. One
    all-reduce over all ranks brings the counters and lambda together; each (token, layer) pair
    lives on one rank, so each is counted once. The new lambda is computed here and takes effect when
    the optimizer reports a step that was taken, so a skipped, repeated or overflowed step leaves
    it. Nothing is read on the host.

    Args:
        model: The pipeline stages of this rank.
        config: Their `ReMoETransformerConfig`.
        finalize: What to call first.
    """

    def __init__(
        self,
        model: list[MegatronModule],
        config,
        finalize: Callable[..., None] = finalize_model_grads,
    ) -> None:
        self.routers = [m for stage in model for m in stage.modules() if isinstance(m, ReLURouter)]
        self.num_layers = config.num_layers
        self.num_experts = config.num_moe_experts
        self.target_sparsity = target_sparsity(config.moe_router_topk, self.num_experts)
        self.multiplier = config.moe_relu_l1_reg_coeff_multiplier
        self.warmup_multiplier = config.moe_relu_l1_reg_coeff_warmup_multiplier
        self.is_capped = config.moe_relu_max_active_experts is not None
        self.config = config
        self.finalize = finalize
        self.stats: RoutingStats | None = None
        self.mean_active_experts: float | None = None
        self._pending: Tensor | None = None
        self._pending_reached: Tensor | None = None
        self._steps = OptimizerSteps(config, self.commit)

    def __call__(self, *args, **kwargs) -> None:
        """Finalize the gradients, then count. Arguments are `finalize_model_grads`'s."""
        self.finalize(*args, **kwargs)
        self.stats = self._gather()
        self._move()
        if not self._steps.follow():
            self.commit()

    def _move(self) -> None:
        """Compute the next lambda, and whether the target was reached."""
        stats = self.stats
        now, target, alpha = stats.sparsity, self.target_sparsity, self.multiplier
        if self.warmup_multiplier is None:
            self._pending = update_reg_coeff(stats.reg_coeff, now, target, alpha)
            self._pending_reached = stats.reached_target
        else:
            self._pending, self._pending_reached = warm_up_reg_coeff(
                stats.reg_coeff, stats.reached_target, now, target, alpha, self.warmup_multiplier
            )

    @torch.no_grad()
    def commit(self) -> None:
        """Let the new lambda take effect in every router."""
        for router in self.routers:
            if router.weight.requires_grad:
                router.state.reg_coeff.copy_(self._pending)
                router.state.reached_target.copy_(self._pending_reached)

    @torch.no_grad()
    def _gather(self) -> "RoutingStats":
        """Sum the routers' counters over all ranks, and empty them."""
        device = torch.cuda.current_device()
        packed = RoutingStats.empty(self.num_layers, self.num_experts, device, self.is_capped)
        for router in self.routers:
            if router.weight.requires_grad:
                packed.add(router.layer_number - 1, router.state)
            router.state.reset()
        torch.distributed.all_reduce(packed.table)
        return packed
