"""The ReLU router in Megatron's router slot."""

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from megatron.remoe.config import ReMoETransformerConfig
from megatron.remoe.regularization import layer_l1_loss
from remoe import RoutingState, relu_router, relu_routing


class ReLURouter(TopKRouter):
    """Routes each token to the experts whose logit is positive: none, some or all of them.

    Keeps Megatron's gating, input jitter, z-loss and forward; replaces `routing`. `self.topk` is the
    target of active experts a token. `self.state` owns lambda (saved, fp32) and the step's counters
    (int64); the step hook reads and moves them once a training step.
    """

    def __init__(
        self,
        config: ReMoETransformerConfig,
        pg_collection: ProcessGroupCollection | None = None,
        is_mtp_layer: bool = False,
    ) -> None:
        super().__init__(config, pg_collection=pg_collection, is_mtp_layer=is_mtp_layer)
        self.load_balancing = config.moe_relu_load_balancing == "micro-batch"
        self.state = RoutingState(
            config.num_moe_experts,
            config.moe_relu_l1_reg_coeff_init,
            device=torch.cuda.current_device(),
            restart=config.moe_relu_restart_l1_reg_coeff,
        )

    def sharded_state_dict(self, prefix: str = "", *args, **kwargs) -> dict:
        """Megatron's, without lambda where loading must not ask for it; saving always holds it."""
        sharded = super().sharded_state_dict(prefix, *args, **kwargs)
        if self.state.awaits_load:
            # Megatron refuses a checkpoint that lacks a name that is asked for.
            del sharded[f"{prefix}state.reg_coeff"]
        return sharded

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """ReLU routing with the L1 loss attached to the gate values.

        Args:
            logits: ``[s, b, num_experts]`` in the router's dtype.
            padding_mask: ``[s, b]`` bool, True = padding. Padding is routed but not counted.

        Returns:
            ``probs`` and ``routing_map``, both ``[num_tokens, num_experts]``.
        """
        logits = logits.view(-1, self.num_experts)
        if padding_mask is not None:
            padding_mask = padding_mask.reshape(-1)
        logits = self.apply_z_loss(logits, padding_mask=padding_mask)
        # Recompute runs the first forward without and the second with gradients: once is counted.
        # A frozen router is not penalised: the loss could only push the layers below it.
        if not (self.training and torch.is_grad_enabled() and self.weight.requires_grad):
            return relu_routing(logits)
        probs, routing_map, counts, probs_per_expert = relu_router(logits, padding_mask)
        return self._attach_l1_loss(probs, counts, probs_per_expert), routing_map

    def _attach_l1_loss(self, probs: Tensor, counts: Tensor, probs_per_expert: Tensor) -> Tensor:
        """Attach ``lambda * L_reg`` through Megatron's auto-scaler, and count the micro-batch."""
        reg_loss, num_tokens = layer_l1_loss(
            probs_per_expert, counts[:-1], self.topk, self.load_balancing, self.tp_cp_group
        )
        self.state.record(counts, reg_loss.detach(), share=1 / self.tp_cp_group.size())
        loss = self.state.reg_coeff * reg_loss
        if self.calculate_per_token_loss:
            # Megatron divides these gradients by the tokens of the global batch.
            loss = loss * num_tokens
        return MoEAuxLossAutoScaler.apply(probs, loss)
