"""The state that a ReLU router carries from step to step: lambda and the step's counters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class RoutingState(nn.Module):
    """One router's lambda and what it counted since the last `reset`.

    Buffers:
        reg_coeff: lambda, 0-dim fp32, saved with the model. It stays fp32 when the model is cast
            (bf16 cannot take a step of 1.001, fp16 turns 1e-8 into 0).
        counts: ``[num_experts + 2]`` int64 as `remoe.sparsity.routing_counts` lays it out. Not
            saved: it is empty between steps.
        reg_loss: Sum of the L1 losses of the step's micro-batches and their number, ``[2]`` fp64.
            Not saved. For the log.

    Args:
        num_experts: ``E``.
        reg_coeff_init: ``lambda_0``.
        device: Where the buffers live; named here so that a model built on the meta device has
            real ones.
        restart: Keep ``lambda_0`` when a state is loaded, whether or not there is a lambda in it.

    Attributes:
        awaits_load: Whether `restart` is still to happen: nothing was loaded, and no step counted.
    """

    reg_coeff: Tensor
    counts: Tensor
    reg_loss: Tensor

    def __init__(
        self,
        num_experts: int,
        reg_coeff_init: float,
        device: torch.device | str | int = "cpu",
        restart: bool = False,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.restart = self.awaits_load = restart
        coeff = torch.tensor(reg_coeff_init, dtype=torch.float32, device=device)
        counts = torch.zeros(num_experts + 2, dtype=torch.int64, device=device)
        reg_loss = torch.zeros(2, dtype=torch.float64, device=device)
        self.register_buffer("reg_coeff", coeff)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("reg_loss", reg_loss, persistent=False)

    @torch.no_grad()
    def record(self, counts: Tensor, reg_loss: Tensor, share: float = 1.0) -> None:
        """Add one micro-batch, or this rank's share of one.

        Args:
            counts: Its `routing_counts` ``[num_experts + 2]``.
            reg_loss: Its L1 loss, scalar; of a share, the part that adds up to the whole.
            share: What it counts as: ``1 / n`` where ``n`` ranks hold the micro-batch together.
        """
        self.counts += counts
        self.reg_loss[0] += reg_loss
        self.reg_loss[1] += share

    @torch.no_grad()
    def reset(self) -> None:
        """Forget the counters; lambda stays."""
        self.counts.zero_()
        self.reg_loss.zero_()
        self.awaits_load = False

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Even a load that is not strict (to which trainers fall back) must not go on from lambda_0
        # in silence; and that second load must find a restart as the first one did.
        name = f"{prefix}reg_coeff"
        if self.restart:
            state_dict[name] = self.reg_coeff.clone()
            self.awaits_load = False
        elif name not in state_dict:
            raise ValueError(f"no {name} in what is loaded: lambda would silently start anew")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RoutingState":
        # nn.Module._apply is what .to(), .cuda(), .half() and .bfloat16() go through. Follow the
        # device, never the dtype: restoring the dtype after a cast would not restore the value.
        # .to_empty() goes through it too, and would leave every buffer as it finds the memory.
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if not buffer.is_meta:
                setattr(self, name, buffer.to(getattr(self, name).device))
        return self
