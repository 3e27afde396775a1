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
        reached_target: 1 once sparsity has reached its target, 0 before, 0-dim fp32. Saved where
            `warms_up`; else it stays 0 and nothing asks for it.
        counts: ``[num_experts + 2]`` int64 as `remoe.sparsity.routing_counts` lays it out. Not
            saved: it is empty between steps.
        reg_loss: Sum of the L1 losses of the step's micro-batches and their number, ``[2]`` fp64.
            Not saved. For the log.
        num_dropped: Active pairs that a cap kept from the experts, 0-dim int64. Not saved. For the log.

    Args:
        num_experts: ``E``.
        reg_coeff_init: ``lambda_0``.
        device: Where the buffers live; named here so that a model built on the meta device has
            real ones.
        restart: Keep ``lambda_0`` when a state is loaded, whether or not there is a lambda in it.
        warms_up: Whether lambda moves faster until the target is reached, so that this is state.

    Attributes:
        awaits_load: Whether `restart` is still to happen: nothing was loaded, and no step counted.
    """

    reg_coeff: Tensor
    reached_target: Tensor
    counts: Tensor
    reg_loss: Tensor
    num_dropped: Tensor

    def __init__(
        self,
        num_experts: int,
        reg_coeff_init: float,
        device: torch.device | str | int = "cpu",
        restart: bool = False,
        warms_up: bool = False,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.warms_up = warms_up
        self.restart = self.awaits_load = restart
        coeff = torch.tensor(reg_coeff_init, dtype=torch.float32, device=device)
        counts = torch.zeros(num_experts + 2, dtype=torch.int64, device=device)
        reg_loss = torch.zeros(2, dtype=torch.float64, device=device)
        self.register_buffer("reg_coeff", coeff)
        self.register_buffer("reached_target", torch.zeros_like(coeff), persistent=warms_up)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("reg_loss", reg_loss, persistent=False)
        self.register_buffer("num_dropped", torch.zeros_like(counts[0]), persistent=False)

    @property
    def saved_names(self) -> tuple[str, ...]:
        """The buffers that a checkpoint holds."""
        return ("reg_coeff", "reached_target") if self.warms_up else ("reg_coeff",)

    @torch.no_grad()
    def record(
        self,
        counts: Tensor,
        reg_loss: Tensor,
        share: float = 1.0,
        num_dropped: Tensor | None = None,
    ) -> None:
        """Add one micro-batch, or this rank's share of one.

        Args:
            counts: Its `routing_counts` ``[num_experts + 2]``.
            reg_loss: Its L1 loss, scalar; of a share, the part that adds up to the whole.
            share: What it counts as: ``1 / n`` where ``n`` ranks hold the micro-batch together.
            num_dropped: Its active pairs that a cap dropped, 0-dim int64; None without a cap.
        """
        self.counts += counts
        self.reg_loss[0] += reg_loss
        self.reg_loss[1] += share
        if num_dropped is not None:
            self.num_dropped += num_dropped

    @torch.no_grad()
    def reset(self) -> None:
        """Forget the counters; lambda and whether the target was reached stay."""
        for counter in (self.counts, self.reg_loss, self.num_dropped):
            counter.zero_()
        self.awaits_load = False

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Even a load that is not strict (to which trainers fall back) must not go on from lambda_0
        # in silence; and that second load must find a restart as the first one did.
        for name in self.saved_names:
            key = f"{prefix}{name}"
            if self.restart:
                state_dict[key] = getattr(self, name).clone()
            elif key not in state_dict:
                raise ValueError(f"no {key} in what is loaded: lambda would silently start anew")
        if self.restart:
            self.awaits_load = False
        if not self.warms_up:  # a run that did not end its warm-up may go on without
            state_dict.pop(f"{prefix}reached_target", None)
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
