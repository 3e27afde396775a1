"""Expert choice in Megatron's router slot."""

import torch
from torch import Tensor

from megatron.remoe.baselines.router import BaselineRouter
from remoe.baselines import choose_tokens


class ExpertChoiceRouter(BaselineRouter):
    """Each expert takes its ``T k / E`` best of the T tokens of a micro-batch.

    The tokens are those of one micro-batch of one data-parallel replica, whatever the layout: ranks that
    share its sequences (sequence parallelism, context parallelism) gather each other's scores and choose
    alike. `--micro-batch-size` is therefore part of the model, in evaluation too, where the choice still
    looks at later tokens: its loss is not that of a causal model.
    """

    def choose(
        self, logits: Tensor, batch: int, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `BaselineRouter.choose`; rows may have 0 to E experts."""
        scores = logits.float().softmax(-1)
        routing_map = self._choose_among_all(scores.detach(), padding_mask)
        return (scores * routing_map).type_as(logits), routing_map

    def _choose_among_all(self, scores: Tensor, padding_mask: Tensor | None) -> Tensor:
        """This rank's rows of what the experts choose among the tokens of all that share sequences."""
        # Without sequence parallelism tensor-parallel ranks hold the same tokens, not parts of them.
        group = self.tp_cp_group if self.config.sequence_parallel else self.cp_group
        if group.size() == 1:
            return choose_tokens(scores, self.config.moe_router_topk, padding_mask)
        everyones = _gathered(scores, group)
        mask = None if padding_mask is None else _gathered(padding_mask, group)
        chosen = choose_tokens(everyones, self.config.moe_router_topk, mask)
        return chosen.chunk(group.size())[group.rank()].contiguous()


def _gathered(part: Tensor, group: torch.distributed.ProcessGroup) -> Tensor:
    """The parts of all ranks of the group, one after another."""
    parts = [torch.empty_like(part) for _ in range(group.size())]
    torch.distributed.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts)
