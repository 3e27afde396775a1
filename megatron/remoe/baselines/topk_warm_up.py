"""TopK that starts nearly dense, in Megatron's router slot."""

from megatron.core.transformer.moe.router import TopKRouter
from megatron.training import get_args
from torch import Tensor

from megatron.remoe.active_expert_cap import steps_that_are_over
from remoe.baselines import topk_at_step


class TopKWarmUpRouter(TopKRouter):
    """Megatron's TopK router whose k is that of the step.

    `topk` is read wherever Megatron needs k: for the choice, and to norm the auxiliary losses. The
    step comes from Megatron's arguments, as that of `ActiveExpertCap`: there is nothing to save, and
    a resumed run has the k of an uninterrupted one. Evaluation has the k of the next training step.
    """

    def forward(self, input: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `TopKRouter.forward`."""
        self.topk = self.now(self.training)
        return super().forward(input, padding_mask)

    def now(self, training: bool) -> int:
        """K of the step that the trainer is in.

        Args:
            training: Whether the model is in training mode.
        """
        config = self.config
        if config.moe_topk_warmup_steps == 0:  # as in a model that was loaded alone
            return config.moe_router_topk
        return topk_at_step(
            config.moe_router_topk,
            config.moe_topk_warmup_experts,
            config.moe_topk_warmup_steps,
            get_args().curr_iteration if training else steps_that_are_over(),
        )
