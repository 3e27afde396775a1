"""How many chunks of tokens keep the experts' rows within a bound."""

import math

import torch
from torch import Tensor


def num_token_chunks(
    routing_map: Tensor,
    max_active: float,
    ep_size: int,
    group: torch.distributed.ProcessGroup,
) -> int:
    """Chunks of tokens, so that no rank's experts take more rows of one than the bound.

    ``n = ceil(max_r rows_r * ep_size / (max_active * num_tokens))``, where ``rows_r`` are the active
    (token, expert) pairs of the experts on rank r and ``num_tokens`` the tokens of all ranks: with even
    load, active experts a token over the bound. Reads the host once; the same on all ranks of the group.

    Args:
        routing_map: ``[num_tokens, num_experts]`` bool, of this rank's tokens.
        max_active: The bound, in experts a token.
        ep_size: Ranks that share the experts.
        group: Ranks that exchange tokens: of expert and expert tensor parallelism.

    Returns:
        1 where everything fits, or nothing is there.
    """
    rows = routing_map.sum(dim=0)
    sizes = torch.cat([rows, rows.new_full((1,), routing_map.shape[0])])
    if group.size() > 1:
        torch.distributed.all_reduce(sizes, group=group)
    fullest = sizes[:-1].view(ep_size, -1).sum(dim=1).max()
    most, num_tokens = torch.stack([fullest, sizes[-1]]).tolist()
    return max(1, math.ceil(most * ep_size / (max_active * max(num_tokens, 1))))
