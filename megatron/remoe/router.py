"""The ReLU router in Megatron's router slot."""

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from megatron.remoe.active_expert_cap import ActiveExpertCap
from megatron.remoe.config import ReMoETransformerConfig
from megatron.remoe.regularization import layer_l1_loss
from remoe import RoutingState, cap_active_experts, relu_router, relu_routing


class ReLURouter(TopKRouter):
    """Routes each token to the experts whose logit is positive: none, some or all of them.

    Keeps Megatron's gating, input jitter, z-loss and forward; replaces `routing`. `self.topk` is the
    target of active experts a token, `self.cap` what bounds them early on, if asked for. `self.state`
    owns lambda (saved, fp32) and the step's counters (int64); the step hook reads and moves them once
    a training step.
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
            warms_up=config.moe_relu_l1_reg_coeff_warmup_multiplier is not None,
        )
        is_capped = config.moe_relu_max_active_experts is not None
        self.cap = ActiveExpertCap(config) if is_capped else None

    def sharded_state_dict(self, prefix: str = "", *args, **kwargs) -> dict:
        """Megatron's, without lambda where loading must not ask for it; saving always holds it."""
        sharded = super().sharded_state_dict(prefix, *args, **kwargs)
        if self.state.awaits_load:
            # Megatron refuses a checkpoint that lacks a name that is asked for.
            for name in self.state.saved_names:
                del sharded[f"{prefix}state.{name}"]
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
            return self._capped(*relu_routing(logits, self._threshold()))[:2]
        probs, routing_map, counts, probs_per_expert = relu_router(logits, padding_mask)
        # What is penalised and counted are the gates before the cap.
        probs, routing_map, num_dropped = self._capped(probs, routing_map, padding_mask)
        loss = self._l1_loss(counts, probs_per_expert, num_dropped)
        return MoEAuxLossAutoScaler.apply(probs, loss), routing_map

    def _threshold(self) -> float:
        """Of this layer; read here because Megatron numbers its layers after they are built."""
        thresholds = self.config.moe_relu_router_thresholds
        return thresholds[self.layer_number - 1] if thresholds else 0.0

    def _capped(
        self, probs: Tensor, routing_map: Tensor, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Drop what is beyond this step's cap; the third is how many pairs, None without a cap."""
        cap = self.cap.now(self.training) if self.cap else None
        if cap is None:
            return probs, routing_map, None
        return cap_active_experts(probs, routing_map, cap, padding_mask)

    def _l1_loss(
        self, counts: Tensor, probs_per_expert: Tensor, num_dropped: Tensor | None
    ) -> Tensor:
        """``lambda * L_reg`` for Megatron's auto-scaler; counts the micro-batch."""
        reg_loss, num_tokens = layer_l1_loss(
            probs_per_expert, counts[:-1], self.topk, self.load_balancing, self.tp_cp_group
        )
        share = 1 / self.tp_cp_group.size()
        self.state.record(counts, reg_loss.detach(), share, num_dropped)
        loss = self.state.reg_coeff * reg_loss
        if self.calculate_per_token_loss:
            # Megatron divides these gradients by the tokens of the global batch.
            loss = loss * num_tokens
        return loss
