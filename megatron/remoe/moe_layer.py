"""Megatron's MoE layer with dispatchers that take any number of active experts."""

from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.moe_utils import get_default_pg_collection

from megatron.remoe.token_dispatcher import ReMoEAlltoAllTokenDispatcher, widen_deepep


class ReMoELayer(MoELayer):
    """`MoELayer` whose token dispatcher is right for 0 to E experts a token.

    `MoELayer` picks its dispatcher by name and has no slot for another class, so the all-to-all one
    is replaced after construction. All-gather needs no change; DeepEP is widened.
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
            if self.shared_expert_overlap:
                self.token_dispatcher.set_shared_experts(self.shared_experts)
        elif (
            config.moe_token_dispatcher_type == "flex"
            and config.moe_flex_dispatcher_backend == "deepep"
        ):
            widen_deepep(
                self.token_dispatcher, config.num_moe_experts, pg_collection.expt_tp.size()
            )

    def _mark_expert_parameters(self) -> None:
        """Reduce and optimize experts apart from dense parameters, whatever the layout.

        Megatron marks them `allreduce = False` only where expert parallelism is on: its optimizer is
        then a chain of two instead of one, and a checkpoint of either kind does not load as the other.
        """
        for parameter in self.experts.parameters():
            parameter.allreduce = False
