"""ReLU routing, and a layer of experts that is routed by it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration_remoe import ReMoEConfig
from .experts_remoe import ReMoEExperts
from .regularization_remoe import routing_loss


def relu_routing(logits: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Gate values, and the experts that each token visits: none, some or all.

    ``R(x_t)_e = ReLU(x_t W)_e`` (eq. 5): no softmax, no renormalisation, no top-k. A threshold ``t``
    moves the number of experts after training: ``t >= 0`` keeps the logits above it as they are,
    ``t < 0`` gives ``ReLU(logits - t)``.

    Args:
        logits: ``[num_tokens, num_experts]``.
        threshold: ``t``; 0 is plain ReLU.

    Returns:
        `probs` of the dtype of `logits`, and ``probs > 0``, both ``[num_tokens, num_experts]``.
    """
    if threshold > 0:
        probs = torch.where(logits > threshold, logits, 0)
    else:
        probs = torch.relu(logits - threshold)
    return probs, probs > 0


class ReMoERouter(nn.Module):
    """The gate of one layer, with lambda and what was counted since the last step.

    Attributes:
        weight: ``[num_experts, h]``.
        reg_coeff: lambda, 0-dim fp32, saved; stays fp32 when the model is cast (bf16 cannot take a
            step of 1.001, fp16 turns 1e-8 into 0).
        counts: Tokens per expert, then the number of tokens, ``[num_experts + 1]`` int64; None before
            anything was counted. No buffer: data parallelism would overwrite it with rank 0's.
    """

    reg_coeff: Tensor

    def __init__(self, config: ReMoEConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.threshold = config.router_threshold(layer_idx)
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        reg_coeff = torch.tensor(config.reg_coeff_init, dtype=torch.float32)
        self.register_buffer("reg_coeff", reg_coeff)
        self.counts: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Route.

        Args:
            hidden_states: ``[num_tokens, h]``.

        Returns:
            Logits, gate values, and where they are positive, each ``[num_tokens, num_experts]``.
        """
        if self.config.router_dtype is None:
            logits = F.linear(hidden_states, self.weight)
        else:
            dtype = getattr(torch, self.config.router_dtype)
            # Autocast would take the product down to half precision again.
            with torch.autocast(hidden_states.device.type, enabled=False):
                logits = F.linear(hidden_states.to(dtype), self.weight.to(dtype))
        return (logits, *relu_routing(logits, self.threshold))

    @torch.no_grad()
    def record(self, counts: Tensor) -> None:
        """Add the counts of a micro-batch to those of the step."""
        self.counts = counts if self.counts is None else self.counts + counts

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ReMoERouter":
        # What .to(), .half() and .bfloat16() go through. Lambda follows the device, never the dtype:
        # to restore the dtype after a cast would not restore the value.
        before = self.reg_coeff
        super()._apply(fn, recurse)
        if not before.is_meta:
            self.reg_coeff = before.to(self.reg_coeff.device)
        if self.counts is not None:
            self.counts = self.counts.to(self.reg_coeff.device)
        return self


class ReMoEMLP(nn.Module):
    """``down(act(gate x) * up x)``: a layer without experts, or the expert that sees every token."""

    def __init__(self, config: ReMoEConfig, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Run it on ``[..., h]``."""
        active = self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states)
        return self.down_proj(active)


class ReMoESparseBlock(nn.Module):
    """Routed experts, and the shared one where there is one."""

    def __init__(self, config: ReMoEConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.router = ReMoERouter(config, layer_idx)
        self.experts = ReMoEExperts(config)
        self.shared_expert = self.shared_expert_gate = None
        if config.shared_expert_intermediate_size is not None:
            self.shared_expert = ReMoEMLP(config, config.shared_expert_intermediate_size)
            if config.shared_expert_gate:
                self.shared_expert_gate = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(
        self, hidden_states: Tensor, is_counted: bool = False, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Run it.

        Args:
            hidden_states: ``[b, s, h]``.
            is_counted: Whether the L1 loss and the counters are wanted.
            padding_mask: ``[b, s]`` bool, True = padding: routed, but not counted.

        Returns:
            Output ``[b, s, h]``; logits ``[b * s, num_experts]``; ``lambda * L_reg``, scalar fp32, and
            the counts of `ReMoERouter`, both None where they are not wanted or the router is frozen (the
            loss could only push the layers below it).
        """
        flat = hidden_states.flatten(0, 1)  # [b, s, h] -> [num_tokens, h]
        logits, probs, routing_map = self.router(flat)
        output = self.experts(flat, probs, routing_map).view_as(hidden_states)
        if self.shared_expert is not None:
            shared = self.shared_expert(hidden_states)
            if self.shared_expert_gate is not None:
                shared = shared * torch.sigmoid(self.shared_expert_gate(hidden_states))
            output = output + shared
        if not (is_counted and self.router.weight.requires_grad):
            return output, logits, None, None
        config = self.config
        padding_mask = None if padding_mask is None else padding_mask.flatten()
        loss, counts = routing_loss(
            probs, routing_map, config.num_experts_per_tok, config.load_balancing, padding_mask
        )
        return output, logits, self.router.reg_coeff * loss, counts
