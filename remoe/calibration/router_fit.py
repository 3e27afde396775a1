"""Finds the weights of a ReLU router that gives wanted gates on recorded hidden states."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4  # of the mean diagonal of X^T X: what keeps its factor finite
NUM_ROUNDS = 12  # of alternation; the error has settled by then
MAX_MARGIN = 4.0  # of the mean gate; sparser than this, most tokens have lost their experts
NUM_BISECTIONS = 7


@dataclass(frozen=True)
class RouterFit:
    """A router and how near it comes to what was wanted, on the tokens that it was fitted to.

    Attributes:
        weight: ``[num_experts, h]`` fp32.
        active_experts: Mean number of positive gates a token.
        sum_error: ``mean_t((sum_e p_te - sum_e g_te)^2) / mean_t((sum_e g_te)^2)``: all that a layer
            sees whose experts are copies of one.
        margin: How far below 0, in mean gates, the logits of experts that are not chosen were wanted.
    """

    weight: Tensor
    active_experts: float
    sum_error: float
    margin: float


def fit_relu_router(
    hidden_states: Tensor,
    gates: Tensor,
    topk: float,
    rechoose: Callable[[Tensor], Tensor] | None = None,
) -> RouterFit:
    """Fit ``relu(x W^T)`` to the gates of another router, with `topk` active experts a token.

    Alternates between least squares for W and targets for the experts that were not chosen, which need
    not lie at ``-m`` but only below it: ``min(x W^T, -m)``. The margin ``m`` at which `topk` experts
    are active is found by bisection; then W is scaled to the mean sum of the wanted gates.

    A ReLU router has no bias, and its sum of gates is convex along every line, so that sparse gates
    follow no wanted ones exactly. Dense ones do better: a larger `topk` is always nearer.

    Args:
        hidden_states: What the router sees, ``[num_tokens, h]``.
        gates: Wanted ones, ``[num_tokens, num_experts]``, ``>= 0``; 0 for experts that are not chosen.
        topk: Mean active experts a token to reach. With more than ``m = 0`` gives, that is what remains.
        rechoose: Gives new wanted gates for logits ``[num_tokens, num_experts]`` after each round; None
            keeps those that were given.

    Returns:
        The router, and how near it is.

    Raises:
        ValueError: If shapes disagree, nothing is chosen, or `topk` cannot be.

    Source: this project's own; experiments/ways_in has what each part brings.
    """
    _check(hidden_states, gates, topk)
    hidden_states, gates = hidden_states.float(), gates.float()
    solve = _least_squares(hidden_states)

    def fit(margin: float) -> RouterFit:
        return _alternate(hidden_states, gates, margin, solve, rechoose)

    low, high = 0.0, MAX_MARGIN
    best = fit(low)
    if best.active_experts <= topk:
        return best
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        found = fit(middle)
        if abs(found.active_experts - topk) < abs(best.active_experts - topk):
            best = found
        low, high = (middle, high) if found.active_experts > topk else (low, middle)
    return best


def _check(hidden_states: Tensor, gates: Tensor, topk: float) -> None:
    num_tokens, num_experts = gates.shape
    if hidden_states.shape[0] != num_tokens:
        raise ValueError(f"{len(hidden_states)} hidden states for gates of {num_tokens} tokens")
    if num_tokens < num_experts:
        raise ValueError(f"{num_tokens} tokens cannot show {num_experts} experts: give more text")
    if not 0 < topk <= num_experts:
        raise ValueError(
            f"topk {topk:g}: give a number above 0 and up to the {num_experts} experts"
        )
    if not (gates > 0).any():
        raise ValueError("no gate is above 0, so there is nothing to fit")


def _least_squares(hidden_states: Tensor) -> Callable[[Tensor], Tensor]:
    """``Y -> (X^T X + r I)^-1 X^T Y``, transposed; factored once, in fp64."""
    gram = (hidden_states.T @ hidden_states).double()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    factor = torch.linalg.cholesky(gram)

    def solve(targets: Tensor) -> Tensor:
        return torch.cholesky_solve((hidden_states.T @ targets).double(), factor).T.float()

    return solve


def _alternate(
    hidden_states: Tensor,
    gates: Tensor,
    margin: float,
    solve: Callable[[Tensor], Tensor],
    rechoose: Callable[[Tensor], Tensor] | None,
) -> RouterFit:
    """The router for one margin."""
    below = -margin * gates[gates > 0].mean()
    targets = torch.where(gates > 0, gates, below)
    for i in range(NUM_ROUNDS):
        weight = solve(targets)
        logits = hidden_states @ weight.T
        # The last rounds let W settle on one choice.
        if rechoose and i < NUM_ROUNDS // 2:
            gates = rechoose(logits)
        targets = torch.where(gates > 0, gates, logits.clamp(max=below))
    probs, wanted = logits.relu(), gates.sum(dim=1)
    scale = wanted.mean() / probs.sum(dim=1).mean().clamp(min=torch.finfo(probs.dtype).tiny)
    error = (scale * probs.sum(dim=1) - wanted).square().mean() / wanted.square().mean()
    active = (probs > 0).sum(dim=1, dtype=torch.float32).mean()
    return RouterFit(scale * weight, active.item(), error.item(), margin)
