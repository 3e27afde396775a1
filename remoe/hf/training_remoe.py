"""The L1 loss of the gates, and the controller of its coefficient for transformers' `Trainer`."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_callback import TrainerCallback

# Bounds that keep lambda a normal fp32 number which one more step can still move.
REG_COEFF_MIN = 1e-30
REG_COEFF_MAX = 1e10


def routing_loss(
    probs: Tensor,
    routing_map: Tensor,
    topk: int,
    load_balancing: bool,
    padding_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The L1 loss of one layer and micro-batch before its coefficient, and what was counted.

    ``1/T * sum_{t,e} f_e R(x_t)_e`` with ``f_e = E / (k T) * sum_t [R(x_t)_e > 0]``, a constant
    (eq. 10, 11), or with ``f_e = 1`` (eq. 9). The paper's ``1/L`` is left out, as in the published
    code: the losses of the layers are added, so that published coefficients compare.

    Args:
        probs: Gate values ``[num_tokens, num_experts]``.
        routing_map: Where they are positive, bool.
        topk: ``k``.
        load_balancing: Eq. 10 if true, eq. 9 if false.
        padding_mask: ``[num_tokens]`` bool, True = padding: such rows count for nothing.

    Returns:
        Scalar fp32; tokens per expert, then the number of tokens, ``[num_experts + 1]`` int64.
    """
    if padding_mask is None:
        num_tokens = torch.full((1,), len(probs), device=probs.device)
    else:
        is_token = ~padding_mask
        num_tokens = is_token.sum(dim=0, keepdim=True)
        probs, routing_map = probs * is_token[:, None], routing_map & is_token[:, None]
    counts = torch.cat((routing_map.sum(dim=0), num_tokens))
    num_tokens = num_tokens.clamp(min=1)
    probs_per_expert = probs.sum(dim=0, dtype=torch.float32)
    if load_balancing:
        fair_share = topk * num_tokens.float() / probs.shape[1]
        probs_per_expert = probs_per_expert * (counts[:-1].float() / fair_share)
    return probs_per_expert.sum() / num_tokens[0], counts


@torch.no_grad()
def record_counts(router: nn.Module, counts: Tensor) -> None:
    """Add the counts of a micro-batch to those of the step."""
    router.counts = counts if router.counts is None else router.counts + counts


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


def trained_routers(model: nn.Module) -> list[nn.Module]:
    """The routers of `model` that learn; a frozen one is neither penalised nor counted."""
    routers = [module for module in model.modules() if type(module).__name__ == "ReMoERouter"]
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
    if any(router.counts is None for router in routers):
        raise ValueError(
            "the model counted nothing since the last step: run it in training mode, with gradients, "
            "and not under torch.nn.DataParallel (start one process a device)"
        )
    device, config = routers[0].weight.device, routers[0].config
    totals = [(r.counts[:-1].sum(), r.counts[-1] * config.num_experts) for r in routers]
    pairs = sum(torch.stack(total).to(device) for total in totals)
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

    def on_train_begin(self, args, state, control, model: nn.Module, **kwargs: Any) -> None:
        """Start with empty counters."""
        reset_counts(model)

    def on_step_end(
        self, args, state, control, model: nn.Module, optimizer=None, **kwargs: Any
    ) -> None:
        """Move lambda, but not where a gradient scaler skipped the step."""
        was_taken = not getattr(optimizer, "step_was_skipped", False)
        self.sparsity = step_controller(model, was_taken)

    def on_log(self, args, state, control, logs=None, model=None, **kwargs: Any) -> None:
        """Add sparsity and lambda to what is logged of training."""
        if self.sparsity is None or logs is None or "loss" not in logs:
            return
        figures = {
            "moe_relu_sparsity": self.sparsity.item(),
            "moe_relu_l1_reg_coeff": trained_routers(model)[0].reg_coeff.item(),
        }
        logs.update(figures)
        state.log_history[-1].update(figures)
