"""What the routers here share: Megatron's router with another choice of experts."""

import torch
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor


class BaselineRouter(TopKRouter):
    """Megatron's gating, input jitter, z-loss and auxiliary losses around another choice of experts."""

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose experts, and attach the auxiliary losses that are asked for.

        Args:
            logits: ``[s, b, num_experts]`` in the router's dtype.
            padding_mask: ``[s, b]`` bool, True = padding.

        Returns:
            ``probs`` and ``routing_map``, both ``[num_tokens, num_experts]``.
        """
        length, batch = logits.shape[:2]
        logits = logits.view(-1, self.num_experts)
        if padding_mask is not None:
            padding_mask = padding_mask.reshape(-1)
        logits = self.apply_z_loss(logits, padding_mask=padding_mask)
        probs, routing_map = self.choose(logits, batch, padding_mask)
        if self.training and torch.is_grad_enabled() and self.is_aux_loss_enabled():
            probs = self._with_losses(logits, probs, routing_map, (length, batch), padding_mask)
        return probs, routing_map

    def choose(
        self, logits: Tensor, batch: int, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The method.

        Args:
            logits: ``[num_tokens, num_experts]``; tokens of all sequences for one position, then the
                next position.
            batch: Sequences of the micro-batch.
            padding_mask: ``[num_tokens]`` bool, True = padding.

        Returns:
            ``probs`` and ``routing_map``, both ``[num_tokens, num_experts]``.
        """
        raise AssertionError("each method chooses for itself")

    def _with_losses(
        self,
        logits: Tensor,
        probs: Tensor,
        routing_map: Tensor,
        shape: tuple[int, int],
        padding_mask: Tensor | None,
    ) -> Tensor:
        """Megatron's losses of softmax scores over all experts and of the experts that were chosen."""
        scores, is_padded = logits.float().softmax(-1), padding_mask is not None
        if is_padded:
            scores = scores * ~padding_mask.unsqueeze(-1)
            routing_map = routing_map & ~padding_mask.unsqueeze(-1)
        probs = self._apply_aux_loss(probs, scores, routing_map, is_padded)
        probs = self._apply_seq_aux_loss(probs, scores, routing_map, *shape, is_padded)
        return self._apply_global_aux_loss(probs, scores, routing_map, is_padded)
