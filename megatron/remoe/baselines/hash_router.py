"""Hash routing in Megatron's router slot."""

import functools

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from megatron.remoe import micro_batch
from megatron.remoe.baselines.config import BaselineConfig
from remoe.baselines import balanced_hash_table


class HashRouter(TopKRouter):
    """Sends each token to the k experts that a fixed table has for its id, with gates 1/k.

    There is nothing to learn, so there is no weight: one without a gradient would hold up Megatron's
    overlapped reduction. The ids come from `micro_batch`, which `forward_step` fills; they are gone in
    the backward pass, so recomputation of the router is refused with the options.

    The table is computed where it is first needed, because Megatron numbers its layers after they
    are built.
    """

    def __init__(
        self,
        config: BaselineConfig,
        pg_collection: ProcessGroupCollection | None = None,
        is_mtp_layer: bool = False,
    ) -> None:
        super().__init__(config, pg_collection=pg_collection, is_mtp_layer=is_mtp_layer)
        self.weight = self.bias = None
        self._table: Tensor | None = None

    def forward(self, input: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Look the experts up.

        Args:
            input: ``[s, b, hidden]``, of which only the shape and the device matter.
            padding_mask: Ignored: padding is routed by its id.

        Returns:
            ``probs`` (fp32) and ``routing_map``, both ``[num_tokens, num_experts]``.

        Raises:
            ValueError: Where nobody said which token ids are in the micro-batch.
        """
        batch = micro_batch.current()
        if batch is None:
            raise ValueError(
                "--moe-routing hash: the token ids are not known here: call the model within "
                "megatron.remoe.micro_batch.in_forward"
            )
        num_tokens = input.shape[0] * input.shape[1]
        ids = micro_batch.tokens_of_rank(batch, num_tokens, self.tp_group)
        experts = self.table(input.device)[ids]
        routing_map = torch.zeros(
            num_tokens, self.num_experts, dtype=torch.bool, device=input.device
        ).scatter(1, experts, True)
        return routing_map.float() / self.topk, routing_map

    def table(self, device: torch.device) -> Tensor:
        """Experts of each token id, ``[V, k]`` int64."""
        if self._table is None or self._table.device != device:
            config = self.config
            self._table = balanced_hash_table(
                config.moe_hash_vocab_size,
                self.num_experts,
                self.topk,
                config.moe_hash_seed,
                self.layer_number,
            ).to(device)
        return self._table


def tell_token_ids(model: MegatronModule) -> None:
    """Let a model in one process tell its own routers the token ids it is called with.

    Args:
        model: A GPT, called as ``model(token_ids [b, s], ...)``. Changed in place.
    """
    forward = model.forward

    @functools.wraps(forward)
    def forward_with_ids(input_ids: Tensor, *args, **kwargs):
        domains = torch.zeros(len(input_ids), dtype=torch.int64, device=input_ids.device)
        with micro_batch.in_forward(micro_batch.MicroBatch(input_ids, domains)):
            return forward(input_ids, *args, **kwargs)

    model.forward = forward_with_ids
