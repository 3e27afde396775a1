"""One layer of the decoder."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_remoe import ReMoEAttention, ReMoERMSNorm
from .configuration_remoe import ReMoEConfig
from .router_remoe import ReMoEMLP, ReMoESparseBlock


class ReMoEDecoderLayer(GradientCheckpointingLayer):
    """Attention, then experts or one gated unit, each behind a norm and beside the residual."""

    def __init__(self, config: ReMoEConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = ReMoEAttention(config, layer_idx)
        self.has_experts = config.has_experts(layer_idx)
        self.mlp: nn.Module
        if self.has_experts:
            self.mlp = ReMoESparseBlock(config, layer_idx)
        else:
            self.mlp = ReMoEMLP(config, config.intermediate_size or 0)
        self.input_layernorm = ReMoERMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = ReMoERMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden_states: Tensor,
        is_counted: bool = False,
        padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, ...]:
        """Run it.

        Args:
            hidden_states: ``[b, s, h]``.
            is_counted: See `ReMoESparseBlock.forward`.
            padding_mask: See there.
            kwargs: For the attention.

        Returns:
            ``[b, s, h]``; the attention's weights; logits, L1 loss and counts of the routing, which
            `LayerOutputs` records: here they would be recorded again when a checkpoint is recomputed.
        """
        attended, weights = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        normed = self.post_attention_layernorm(hidden_states)
        if self.has_experts:
            output, *routing = self.mlp(normed, is_counted, padding_mask)
        else:
            output, routing = self.mlp(normed), [None, None, None]
        return hidden_states + output, weights, *routing  # flat: re-entrant checkpoints want it


@dataclass
class LayerOutputs:
    """What the layers give beside their output, in the order of the layers."""

    inputs: list[Tensor] = field(default_factory=list)
    attentions: list[Any] = field(default_factory=list)
    router_logits: list[Any] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    def run(self, layer: nn.Module, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Run `layer`, keep what it gives, and count its tokens; returns its output."""
        self.inputs.append(hidden_states)
        hidden_states, weights, logits, loss, counts = layer(hidden_states, **kwargs)
        self.attentions.append(weights)
        if logits is not None:
            self.router_logits.append(logits)
        if loss is not None:
            self.losses.append(loss)
            layer.mlp.router.record(counts)  # type: ignore[operator, union-attr]
        return hidden_states

    def aux_loss(self) -> Tensor | None:
        """The sum of the layers' losses, on the first one's device; None without any."""
        if not self.losses:
            return None
        return sum((loss.to(self.losses[0].device) for loss in self.losses[1:]), self.losses[0])
