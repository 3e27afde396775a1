"""SparseMixer-v2: experts are sampled, and the router learns by an estimate of the true gradient."""

import torch
from torch import Tensor

THIRD_ORDER_SHARE = (
    0.75  # of sampled gates that are evaluated at a third, in Heun's third-order method
)

SMALLEST_DRAW = 1e-30  # of 0 the noise would be infinite


def num_draws(topk: int, num_experts: int) -> int:
    """Uniform random numbers that each token needs: for each choice E to sample and one to weigh."""
    return topk * (num_experts + 1)


def sparsemixer_routing(
    logits: Tensor, topk: int, jitter: float, draws: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose k experts a token, one after another, each among those that the earlier ones left.

    One choice, of logits ``z`` with the chosen ones set to minus infinity and ``z*`` their maximum:

        Delta_i = (z* - z_i) / max(|z_i|, z*) <= 2 r             who may be chosen
        pi      = softmax over Delta of z                        MaskedSoftmax
        D       ~ pi in training, argmax pi else
        gate    = pi_D * w,   w = 1   where D is the argmax, or with probability 1/4
                              w = 1/3 else
        d gate  = d pi_D                                         without w

    A gate at a third is the inner point of Heun's third-order method, ``f(x) - f(0) = f'(x) / 4 +
    3 f'(x / 3) / 4``: in expectation the router gets the gradient of the expected output of a sampled
    expert to third order, and not only that of the gate as a factor.

    Args:
        logits: ``z``, ``[num_tokens, num_experts]``.
        topk: ``k``, from 1 to E.
        jitter: ``r``; the larger, the more experts may be chosen.
        draws: ``[num_tokens, k (E + 1)]`` uniform in [0, 1), fp32; None in evaluation, where the k
            largest logits are chosen and no gate is weighed.

    Returns:
        ``probs`` ``[num_tokens, num_experts]`` in the dtype of `logits`, and ``routing_map``, bool,
        with k true entries in each row.

    Source: arXiv 2409.12136, on SparseMixer-v2; in details (the bound of the mask, the weights, the
    second choice) what its authors' published code does for k = 1 and 2, which rounds 1/3 to 0.3333.
    k > 2 goes on in the same way, which they did not try.
    """
    num_tokens, num_experts = logits.shape
    if draws is not None:
        draws = draws.view(num_tokens, topk, num_experts + 1)
    probs = torch.zeros_like(logits)
    routing_map = torch.zeros_like(logits, dtype=torch.bool)
    for i in range(topk):
        left = logits.masked_fill(routing_map, float("-inf"))
        gate, expert = _choose(left, jitter, None if draws is None else draws[:, i])
        probs = probs.scatter(-1, expert, gate)
        routing_map = routing_map.scatter(-1, expert, True)
    return probs, routing_map


def _choose(logits: Tensor, jitter: float, draws: Tensor | None) -> tuple[Tensor, Tensor]:
    """One choice: the gate and the expert, both ``[num_tokens, 1]``."""
    pi = _masked_softmax(logits, jitter)
    best = logits.argmax(-1, keepdim=True)
    if draws is None:
        return pi.gather(-1, best), best
    # The largest of log pi plus Gumbel noise is a sample of pi.
    noise = -(-draws[:, :-1].clamp_min(SMALLEST_DRAW).log()).log()
    expert = (pi.detach().float().log() + noise).argmax(-1, keepdim=True)
    gate = pi.gather(-1, expert)
    is_whole = (expert == best) | (draws[:, -1:] >= THIRD_ORDER_SHARE)
    # Its value is weighed, its gradient is not.
    return gate - (gate * 2 / 3).masked_fill(is_whole, 0.0).detach(), expert


def _masked_softmax(logits: Tensor, jitter: float) -> Tensor:
    """Softmax over the logits that are near enough to the largest."""
    with torch.no_grad():
        largest = logits.amax(-1, keepdim=True)
        distance = (largest - logits) / torch.maximum(logits.abs(), largest)
        # What was chosen before is minus infinity: its distance is no number.
        is_far = (distance > 2 * jitter) | logits.isinf()
    return logits.masked_fill(is_far, float("-inf")).softmax(-1)
