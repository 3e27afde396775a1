"""SparseMixer-v2 in Megatron's router slot."""

from megatron.core.process_groups_config import ProcessGroupCollection
from torch import Tensor

from megatron.remoe.baselines.config import BaselineConfig
from megatron.remoe.baselines.draws import TokenDraws
from megatron.remoe.baselines.router import BaselineRouter
from remoe.baselines import num_draws, sparsemixer_routing


class SparseMixerRouter(BaselineRouter):
    """Samples k experts a token in training and takes the k largest logits in evaluation.

    The auxiliary loss is Megatron's, over the softmax of all logits and the experts that were sampled,
    as in the authors' code.
    """

    def __init__(
        self,
        config: BaselineConfig,
        pg_collection: ProcessGroupCollection | None = None,
        is_mtp_layer: bool = False,
    ) -> None:
        super().__init__(config, pg_collection=pg_collection, is_mtp_layer=is_mtp_layer)
        self.draws = TokenDraws(self.tp_group, self.cp_group, config.sequence_parallel)

    def choose(
        self, logits: Tensor, batch: int, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `BaselineRouter.choose`; each row has k experts."""
        draws = None
        if self.training:
            shape = (len(logits) // batch, batch, num_draws(self.topk, self.num_experts))
            draws = self.draws.uniform(self.layer_number, shape, logits.device)
        probs, routing_map = sparsemixer_routing(
            logits.float(), self.topk, self.config.moe_sparsemixer_jitter, draws
        )
        return probs.type_as(logits), routing_map
