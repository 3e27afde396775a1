"""Megatron's token dispatchers for a number of active experts that the data decides."""

from megatron.core.transformer.moe.token_dispatcher import (
    MoEAlltoAllTokenDispatcher,
    MoEFlexTokenDispatcher,
)
from torch import Tensor

from megatron.remoe.row_budget import RowBudget
from remoe.kernels.permute import permute, unpermute

# DeepEP's kernels assert num_topk <= 32.
DEEPEP_MAX_TOPK = 32


class ReMoEAlltoAllTokenDispatcher(MoEAlltoAllTokenDispatcher):
    """The all-to-all dispatcher with as many rows as there are active (token, expert) pairs.

    Megatron's own sends ``num_tokens * topk`` rows, known without asking the device. Here the number
    is data: it comes to the host with the sizes that the all-to-all needs, in the one copy that
    Megatron makes, which must then end before the first permutation.

    Permutes by `remoe.kernels.permute` where Megatron without TransformerEngine sorts all E * T pairs.
    The second permutation, which brings the rows of all ranks into the order of experts, is Megatron's,
    and is left out where one rank has all experts: its rows are in that order.

    Attributes:
        row_budget: Says how many rows to make without asking, where there is one and it is armed.
    """

    row_budget: RowBudget | None = None

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

    def dispatch_preprocess(
        self, hidden_states: Tensor, routing_map: Tensor, probs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the sizes and make the rows that leave this rank.

        Args:
            hidden_states: ``[s, b, hidden]`` or ``[num_tokens, hidden]``.
            routing_map: ``[num_tokens, num_experts]`` bool.
            probs: ``[num_tokens, num_experts]``.

        Returns:
            Rows ``[num_out_tokens, hidden]`` and their gate values ``[num_out_tokens]``; as many as the
            budget has where it is armed, of which the last may be garbage that nothing reads.
        """
        self.hidden_shape = hidden_states.shape
        self.probs, self.routing_map = probs, routing_map
        self.tokens_per_expert = self.preprocess(routing_map)
        if self.shared_experts is not None:
            self.shared_experts.pre_forward_comm(hidden_states)
        self._count_rows(len(routing_map))
        tokens = hidden_states.view(-1, self.hidden_shape[-1])
        rows, gates, self.reversed_local_input_permutation_mapping = permute(
            tokens, probs, routing_map, int(self.num_out_tokens)
        )
        return rows, gates

    def _count_rows(self, num_tokens: int) -> None:
        """Have `num_out_tokens` and `tokens_per_expert`: by the budget, or from the device."""
        if self.row_budget is not None:
            num_rows = self.row_budget.num_rows(num_tokens)
            kept = self.row_budget.fit(self.tokens_per_expert, num_rows)
            if self.row_budget.is_armed:
                self.num_out_tokens, self.tokens_per_expert = num_rows, kept
                return
        self.tokens_per_expert = self._maybe_dtoh_and_synchronize(
            "before_permutation_1", self.tokens_per_expert
        )

    def dispatch_postprocess(
        self, global_input_tokens: Tensor, global_probs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bring the rows of all ranks into the order of experts; see Megatron's."""
        if not self._has_all_experts():
            return super().dispatch_postprocess(global_input_tokens, global_probs)
        tokens_per_expert, self.tokens_per_expert = self.tokens_per_expert, None
        return global_input_tokens, tokens_per_expert, global_probs

    def combine_preprocess(self, hidden_states: Tensor) -> Tensor:
        """The inverse of `dispatch_postprocess`."""
        return (
            hidden_states if self._has_all_experts() else super().combine_preprocess(hidden_states)
        )

    def combine_postprocess(self, permutated_local_input_tokens: Tensor) -> Tensor:
        """Sum each token's rows, and add the shared experts' output.

        Args:
            permutated_local_input_tokens: Experts' outputs ``[num_out_tokens, hidden]``.

        Returns:
            Of the shape of the layer's input.
        """
        output = unpermute(
            permutated_local_input_tokens, self.reversed_local_input_permutation_mapping
        ).view(self.hidden_shape)
        if self.shared_experts is not None:
            output = output + self.shared_experts.get_output()
        return output

    def _has_all_experts(self) -> bool:
        return self.ep_size == 1 and self.tp_size == 1


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
