"""The controller of the L1 loss's coefficient, for transformers' `Trainer` or a loop of one's own."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.trainer_callback import TrainerCallback

from .router_remoe import ReMoERouter

# Bounds that keep lambda a normal fp32 number which one more step can still move.
REG_COEFF_MIN = 1e-30
REG_COEFF_MAX = 1e10


@torch.no_grad()
def update_reg_coeff(
    reg_coeff: Tensor, sparsity: Tensor, target_sparsity: float, multiplier: float
) -> Tensor:
    """``lambda_{i+1} = lambda_i * alpha^sign((1 - k/E) - S_i)`` (eq. 7).

    Args:
        reg_coeff: ``lambda_i``, 0-dim fp32.
        sparsity: ``S_i``, 0-dim fp64; NaN (nothing was counted) leaves lambda.
        target_sparsity: ``1 - k/E``.
        multiplier: ``alpha > 1``.

    Returns:
        ``lambda_{i+1}``, 0-dim fp32. Nothing is read on the host.
    """
    stepped = torch.where(sparsity < target_sparsity, reg_coeff * multiplier, reg_coeff)
    stepped = torch.where(sparsity > target_sparsity, reg_coeff / multiplier, stepped)
    return stepped.clamp(REG_COEFF_MIN, REG_COEFF_MAX)


def trained_routers(model: nn.Module) -> list[ReMoERouter]:
    """The routers of `model` that learn; a frozen one is neither penalised nor counted."""
    # By name: code that was loaded from beside the weights has a class of its own.
    found = [module for module in model.modules() if type(module).__name__ == "ReMoERouter"]
    routers = cast("list[ReMoERouter]", found)
    return [router for router in routers if router.weight.requires_grad]


@torch.no_grad()
def reset_counts(model: nn.Module) -> None:
    """Forget what was counted since the last step; lambda stays."""
    for router in trained_routers(model):
        router.counts = None


@torch.no_grad()
def step_controller(model: nn.Module, was_taken: bool = True) -> Tensor | None:
    """Move lambda once, after an optimizer's step, and empty the counters.

    Active and all (token, expert) pairs are summed over layers, micro-batches and the ranks of
    torch.distributed where it is initialised, and then divided (eq. 8): lambda is the same on all ranks.
    Every rank must call it.

    Args:
        model: ReMoE model, wrapped or not, that ran its micro-batches in training mode.
        was_taken: False where the optimizer skipped its step: lambda stays.

    Returns:
        The sparsity ``S``, 0-dim fp64 on the model's first device; None if no router learns.

    Raises:
        ValueError: If no forward was counted.
    """
    if not (routers := trained_routers(model)):
        return None
    counts = [router.counts for router in routers if router.counts is not None]
    if len(counts) < len(routers):
        raise ValueError(
            "the model counted nothing since the last step: run it in training mode, with gradients, "
            "and not under torch.nn.DataParallel (start one process a device)"
        )
    device, config = routers[0].weight.device, routers[0].config
    totals = [torch.stack((c[:-1].sum(), c[-1] * config.num_experts)).to(device) for c in counts]
    pairs = torch.stack(totals).sum(dim=0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(pairs)
    num_active, num_slots = pairs.double()
    sparsity = 1.0 - num_active / num_slots
    target = 1.0 - config.num_experts_per_tok / config.num_experts
    for router in routers:
        if was_taken:
            here = sparsity.to(router.reg_coeff.device)
            multiplier = config.reg_coeff_multiplier
            router.reg_coeff.copy_(update_reg_coeff(router.reg_coeff, here, target, multiplier))
        router.counts = None
    return sparsity


class ReMoECallback(TrainerCallback):
    """Holds sparsity at ``1 - k/E``: ``Trainer(..., callbacks=[ReMoECallback()])``.

    Moves lambda after each step that the optimizer took, before the step's checkpoint is saved, and
    adds `moe_relu_sparsity` and `moe_relu_l1_reg_coeff` to the log. Without it lambda stays as it is.

    Attributes:
        sparsity: Of the last step, 0-dim fp64; None before.
    """

    def __init__(self) -> None:
        self.sparsity: Tensor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start with empty counters."""
        reset_counts(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move lambda, but not where a gradient scaler skipped the step."""
        was_skipped = getattr(kwargs.get("optimizer"), "step_was_skipped", False)
        self.sparsity = step_controller(kwargs["model"], was_taken=not was_skipped)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add sparsity and lambda to what is logged of training."""
        logs = kwargs.get("logs") or {}
        if self.sparsity is None or "loss" not in logs:
            return
        figures = {
            "moe_relu_sparsity": self.sparsity.item(),
            "moe_relu_l1_reg_coeff": trained_routers(kwargs["model"])[0].reg_coeff.item(),
        }
        logs.update(figures)
        state.log_history[-1].update(figures)
