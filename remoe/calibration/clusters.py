"""Even clusters of tokens: what experts that are copies of one are to divide among themselves."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from remoe.calibration.router_fit import RouterFit, fit_relu_router

NUM_ROUNDS = 15
NUM_BALANCING_STEPS = 20


def fit_router_to_clusters(
    hidden_states: Tensor, num_experts: int, topk: float, generator: torch.Generator | None = None
) -> RouterFit:
    """Fit a router whose gates sum to about one and which divides the tokens among the experts.

    For experts that are copies of one, whose layer computes ``(sum_e p_e) FFN(x)``. Starts from
    `cluster_gates`; after each round of the fit the tokens choose anew, by their largest logits, so that
    the parts become ones that hyperplanes can tell apart.

    Args:
        hidden_states: What the router sees, ``[num_tokens, h]``.
        num_experts: ``E``.
        topk: Mean active experts a token to reach. Near 1 some tokens are left without an expert.
        generator: Of the clusters' start.

    Returns:
        The router, and how near its sums of gates are to one.

    Raises:
        ValueError: If there are fewer tokens than experts, or `topk` cannot be.
    """
    if len(hidden_states) < num_experts:
        raise ValueError(
            f"{len(hidden_states)} tokens cannot show {num_experts} experts: give more text"
        )
    # As few clusters a token as give enough experts: one has the smaller error up to about E/4 of them.
    for num_chosen in range(1, max(1, math.floor(topk)) + 1):
        gates = cluster_gates(hidden_states.float(), num_experts, num_chosen, generator)
        rechoose = partial(even_gates, num_chosen=num_chosen)
        found = fit_relu_router(hidden_states, gates, topk, rechoose)
        if found.margin > 0:  # else all of the experts that it can have are active, and too few
            break
    return found


def cluster_gates(
    hidden_states: Tensor,
    num_experts: int,
    num_chosen: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Gates of a TopK router that there might have been: spherical k-means, evened out.

    Hidden states behind a norm share a large mean, which is taken off, so that directions differ.

    Args:
        hidden_states: ``[num_tokens, h]`` fp32.
        num_experts: ``E``, the number of clusters.
        num_chosen: Clusters that a token belongs to, each with a gate of ``1 / num_chosen``.
        generator: Of the start.

    Returns:
        ``[num_tokens, num_experts]`` fp32; rows sum to one.
    """
    tokens = F.normalize(hidden_states - hidden_states.mean(dim=0), dim=1)
    start = torch.randperm(len(tokens), generator=generator, device=tokens.device)
    centres = tokens[start[:num_experts]]
    for _ in range(NUM_ROUNDS):
        gates = even_gates(tokens @ centres.T, num_chosen)
        centres = F.normalize(gates.T @ tokens, dim=1)
    return gates


def even_gates(scores: Tensor, num_chosen: int = 1) -> Tensor:
    """Give each token the `num_chosen` experts of its largest scores, about evenly.

    A bias for each expert rises while it has less than its share and falls while it has more.

    Args:
        scores: ``[num_tokens, num_experts]``.
        num_chosen: Experts a token.

    Returns:
        ``1 / num_chosen`` where chosen, else 0, of the shape of `scores`.
    """
    num_tokens, num_experts = scores.shape
    bias = torch.zeros_like(scores[0])
    step = scores.std() / num_experts
    for i in range(NUM_BALANCING_STEPS):
        chosen = (scores + bias).topk(num_chosen, dim=1).indices
        share = torch.bincount(chosen.flatten(), minlength=num_experts).to(scores.dtype)
        share *= num_experts / (num_chosen * num_tokens)
        bias += (1 - i / NUM_BALANCING_STEPS) * step * (1 - share).clamp(-1, 1)
    chosen = (scores + bias).topk(num_chosen, dim=1).indices
    return torch.zeros_like(scores).scatter_(1, chosen, 1.0 / num_chosen)
