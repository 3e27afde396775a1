"""Megatron's token dispatchers for a number of active experts that the data decides."""

from megatron.core.transformer.moe.token_dispatcher import (
    MoEAlltoAllTokenDispatcher,
    MoEFlexTokenDispatcher,
)
from torch import Tensor

# DeepEP's kernels assert num_topk <= 32.
DEEPEP_MAX_TOPK = 32


class ReMoEAlltoAllTokenDispatcher(MoEAlltoAllTokenDispatcher):
    """The all-to-all dispatcher with as many rows as there are active (token, expert) pairs.

    Megatron's own sends ``num_tokens * topk`` rows, known without asking the device. Here the number
    is data: it comes to the host with the sizes that the all-to-all needs, in the one copy that
    Megatron makes, which must then end before the first permutation.
    """

    def preprocess(self, routing_map: Tensor) -> Tensor:
        """Compute the sizes of the exchange.

        Args:
            routing_map: ``[num_tokens, num_experts]`` bool.

        Returns:
            Tokens of each local expert ``[num_local_experts]``.
        """
        tokens_per_local_expert = super().preprocess(routing_map)
        self.num_out_tokens = routing_map.sum()
        self._maybe_update_cuda_sync_point("before_permutation_1")
        return tokens_per_local_expert


def widen_deepep(dispatcher: MoEFlexTokenDispatcher, num_experts: int, tp_size: int) -> None:
    """Let the DeepEP manager carry up to all experts of a token.

    It packs the map into ``[num_tokens, router_topk]`` indices by `torch.topk`, which drops whatever is
    beyond k, and marks slots with a zero gate as empty only if a capacity factor is set; it uses the
    factor for nothing else.

    Args:
        dispatcher: A flex dispatcher with the DeepEP backend.
        num_experts: ``E``.
        tp_size: Size of the expert tensor-parallel group, which multiplies the slots.

    Raises:
        ValueError: If a token's slots do not fit DeepEP's kernels.
    """
    slots = tp_size * num_experts
    if slots > DEEPEP_MAX_TOPK:
        raise ValueError(
            f"DeepEP carries at most {DEEPEP_MAX_TOPK} experts a token, but ReLU routing may use "
            f"{slots} (experts x expert tensor parallel size): use --moe-token-dispatcher-type "
            "alltoall, or --moe-flex-dispatcher-backend hybridep"
        )
    dispatcher._comm_manager.router_topk = slots
    dispatcher._comm_manager.capacity_factor = 1.0
