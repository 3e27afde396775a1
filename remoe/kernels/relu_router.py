"""ReLU routing in one pass over the logits, with the sums that regulariser and counters need."""

import math

import torch
from torch import Tensor

from remoe.kernels.choice import triton_kernels
from remoe.routing import relu_routing
from remoe.sparsity import routing_counts


def relu_router_reference(
    logits: Tensor, padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `relu_router` computes, written with the functions that hold the formulas."""
    probs, routing_map = relu_routing(logits)
    counts = routing_counts(routing_map, padding_mask)
    return probs, routing_map, counts, _sum(probs, padding_mask)


def relu_router(
    logits: Tensor, padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Route by ReLU, count, and sum each expert's gate values.

    The L1 loss is a weighted sum of `probs_per_expert`, so its gradient with respect to a gate value is
    a constant ``c_e`` per expert, and with the gradient ``g`` of everything else
    ``dL/dlogits_te = (g_te + c_e * [t is no padding]) * [probs_te > 0]``.

    CUDA tensors go through Triton where it is installed: one kernel over the logits, one elementwise
    kernel backward. All others go through torch, where autograd's backward has no more passes than
    one written by hand (benchmarks/README.md). Both are deterministic.

    Args:
        logits: Router output ``[num_tokens, num_experts]``, any floating dtype; ``num_tokens`` may be 0.
        padding_mask: ``[num_tokens]`` bool, True = padding. Padding is routed but not counted.

    Returns:
        ``probs`` and ``routing_map`` as of `remoe.routing.relu_routing`; ``counts``
        ``[num_experts + 2]`` int64, exact, as of `remoe.sparsity.routing_counts`;
        ``probs_per_expert`` ``[num_experts]`` fp32, the sum of each expert's gate values without
        padding. Gradients flow through ``probs`` and ``probs_per_expert``.

    Source: arXiv 2412.14711, eq. 5 and 8 to 11.
    """
    logits = logits.contiguous()
    if kernels := triton_kernels(logits, "relu_router_triton"):
        return kernels.ReLURouter.apply(logits, padding_mask)
    probs = torch.relu(logits)
    with torch.no_grad():
        # probs > 0 at three times the speed: torch on the CPU vectorises this cast, but no
        # comparison that gives bool. The sign of NaN is 0: inactive, as in relu_routing.
        routing_map = probs.sign().bool()
        counts = _count(routing_map, padding_mask)
    return probs, routing_map, counts, _sum(probs, padding_mask)


def _sum(probs: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Gate values of each expert, in fp32, without padding."""
    if padding_mask is not None:
        probs = probs.masked_fill(padding_mask.unsqueeze(1), 0.0)
    return probs.sum(dim=0, dtype=torch.float32)


def _count(routing_map: Tensor, padding_mask: Tensor | None) -> Tensor:
    """`routing_counts` of a contiguous map, by bytes and by words of eight experts."""
    num_tokens, num_experts = routing_map.shape
    # From 2048 experts on, the words of a row could add up to zero.
    if num_tokens == 0 or num_experts % 8 or num_experts >= 2048:
        return routing_counts(routing_map, padding_mask)
    words = routing_map.view(torch.int64)  # [num_tokens, num_experts / 8]
    num_valid = torch.full((1,), num_tokens, device=routing_map.device)
    if padding_mask is not None:
        words = words.masked_fill(padding_mask.unsqueeze(1), 0)
        num_valid -= padding_mask.sum()
    rows = math.gcd(num_tokens, 128)  # a byte holds sums up to 255
    sums = words.view(torch.uint8).view(rows, -1).sum(dim=0, dtype=torch.uint8)
    tokens_per_expert = sums.view(-1, num_experts).sum(dim=0)
    with_expert = torch.count_nonzero(words.sum(dim=1))
    return torch.cat([tokens_per_expert, num_valid, num_valid - with_expert])
