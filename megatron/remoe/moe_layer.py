"""Megatron's MoE layer with dispatchers that take any number of active experts."""

import torch
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from megatron.remoe.row_budget import RowBudget
from megatron.remoe.token_chunks import num_token_chunks
from megatron.remoe.token_dispatcher import ReMoEAlltoAllTokenDispatcher, widen_deepep
from megatron.remoe.torch_native import TorchGroupedMLP


class ReMoELayer(MoELayer):
    """`MoELayer` whose token dispatcher is right for 0 to E experts a token.

    `MoELayer` picks its dispatcher by name and has no slot for another class, so the all-to-all one
    is replaced after construction. All-gather needs no change; DeepEP is widened.

    With `moe_relu_chunk_above` M, a layer where a token has more than M active experts lets its experts
    take the tokens in chunks, one after another, and computes each again in the backward pass. While
    routing is dense, half of all experts are active: their activations are then those of one chunk of
    one layer instead of all tokens of all layers. Tokens are routed, counted and penalised once,
    whole; only sums of weight gradients round in another order.
    """

    def __init__(self, config, submodules=None, layer_number=None, pg_collection=None, **kwargs):
        if pg_collection is None:
            pg_collection = get_default_pg_collection()
        super().__init__(config, submodules, layer_number, pg_collection, **kwargs)
        self._mark_expert_parameters()
        if config.moe_token_dispatcher_type == "alltoall":
            self.token_dispatcher = ReMoEAlltoAllTokenDispatcher(
                self.num_local_experts,
                self.local_expert_indices,
                config=self.config,
                pg_collection=pg_collection,
            )
            if config.moe_relu_row_budget is not None:
                self._add_row_budget(config)
            if self.shared_expert_overlap:
                self.token_dispatcher.set_shared_experts(self.shared_experts)
        elif (
            config.moe_token_dispatcher_type == "flex"
            and config.moe_flex_dispatcher_backend == "deepep"
        ):
            widen_deepep(
                self.token_dispatcher, config.num_moe_experts, pg_collection.expt_tp.size()
            )

    def forward(
        self,
        hidden_states: Tensor,
        intermediate_tensors: tuple | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Route, dispatch, compute, combine; see `MoELayer.forward`.

        Args:
            hidden_states: ``[s, b, hidden]``.
            intermediate_tensors: Of Megatron's partial forward passes; not with chunks.
            padding_mask: ``[b, s]`` bool, True = padding.

        Returns:
            ``[s, b, hidden]``, and None for the bias that there never is.
        """
        if self.config.moe_relu_chunk_above is None:
            return super().forward(hidden_states, intermediate_tensors, padding_mask)
        if padding_mask is not None:
            padding_mask = padding_mask.transpose(0, 1).bool()
        shared = self.shared_experts_compute(hidden_states)
        output = self._compute_by_chunk(hidden_states, *self.route(hidden_states, padding_mask))
        return output if shared is None else output + shared, None

    def _compute_by_chunk(
        self, hidden_states: Tensor, probs: Tensor, routing_map: Tensor
    ) -> Tensor:
        """Experts' output ``[s, b, hidden]``, in as many chunks of ``s`` as the bound asks for."""
        limit, dispatcher = self.config.moe_relu_chunk_above, self.token_dispatcher
        num_chunks = num_token_chunks(
            routing_map, limit, self.ep_group.size(), dispatcher.tp_ep_group
        )
        length = hidden_states.shape[0]
        gates = [x.view(length, -1, self.config.num_moe_experts) for x in (probs, routing_map)]
        if num_chunks == 1:
            return self._compute_chunk(hidden_states, *gates)
        parts = [x.tensor_split(num_chunks) for x in (hidden_states, *gates)]
        # Nothing here draws random numbers, which Megatron's checkpoint would keep for each chunk.
        # Computed to the end, not until the last tensor that is needed, which with and without rows
        # may lie on either side of a collective.
        with set_checkpoint_early_stop(False):
            outputs = [
                checkpoint(
                    self._compute_chunk, *part, use_reentrant=False, preserve_rng_state=False
                )
                for part in zip(*parts, strict=True)
            ]
        return torch.cat(outputs)

    def _compute_chunk(self, hidden_states: Tensor, probs: Tensor, routing_map: Tensor) -> Tensor:
        """Experts' output ``[s, b, hidden]`` of tokens with gates ``[s, b, num_experts]``."""
        probs, routing_map = probs.flatten(0, 1), routing_map.flatten(0, 1)
        dispatched, probs = self.dispatch(*self.preprocess(hidden_states, probs, routing_map))
        output, _ = self.routed_experts_compute(dispatched, probs)
        return self.postprocess(self.combine(output), None)

    def _add_row_budget(self, config) -> None:
        if not isinstance(self.experts, TorchGroupedMLP):
            raise ValueError(
                "--moe-relu-row-budget: needs torch's grouped experts, which are used where "
                "TransformerEngine is not installed and --transformer-impl is not given: leave it out"
            )
        self.row_budget = RowBudget(
            config.moe_relu_row_budget,
            config.moe_router_topk,
            config.num_moe_experts,
            device=torch.cuda.current_device(),
        )
        self.token_dispatcher.row_budget = self.row_budget

    def _mark_expert_parameters(self) -> None:
        """Reduce and optimize experts apart from dense parameters, whatever the layout.

        Megatron marks them `allreduce = False` only where expert parallelism is on: its optimizer is
        then a chain of two instead of one, and a checkpoint of either kind does not load as the other.
        """
        for parameter in self.experts.parameters():
            parameter.allreduce = False
