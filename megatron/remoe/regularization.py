"""The L1 loss of one layer over the ranks that share its sequences."""

import torch
from torch import Tensor

from remoe import expert_load, l1_loss_of_sums


def layer_l1_loss(
    probs_per_expert: Tensor,
    counts: Tensor,
    topk: int,
    load_balancing: bool,
    tp_cp_group: torch.distributed.ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """This rank's part of the layer's L1 loss; the parts of the TP x CP group add up to the whole.

    Load and number of tokens are those of one micro-batch over the group (summed on the device, no
    host read); the gate values are this rank's. Megatron's auto-scaler sums the gradients over the
    group and averages them over micro-batches and data-parallel ranks.

    Args:
        probs_per_expert: This rank's sum of gate values ``[num_experts]`` fp32, without padding.
        counts: This rank's tokens per expert, then its number of tokens, ``[num_experts + 1]``
            int64, without padding.
        topk: Target of active experts a token.
        load_balancing: Eq. 10 if true, eq. 9 if false.
        tp_cp_group: Ranks that hold other tokens of the same sequences.

    Returns:
        The loss before its coefficient, scalar fp32, and the group's number of tokens, 0-dim int64.
    """
    if tp_cp_group.size() > 1:
        counts = counts.clone()  # all_reduce works in place
        torch.distributed.all_reduce(counts, group=tp_cp_group)
    tokens_per_expert, num_tokens = counts[:-1], counts[-1]
    load = expert_load(tokens_per_expert, topk, num_tokens) if load_balancing else None
    return l1_loss_of_sums(probs_per_expert, num_tokens, load), num_tokens
