# mypy: allow-untyped-defs
"""Triton kernels of `remoe.kernels.relu_router`: one pass forward, one elementwise pass backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4096  # entries of [num_tokens, num_experts] that a program holds at a time
# At most so many rows of partial sums. A constant, so that sums are the same on every GPU.
MAX_PROGRAMS = 1024
ELEMENTS = 1024  # of a program of the backward
COLUMNS, ROWS = 32, 128  # of partial sums that a program of the reduction holds at a time


@triton.jit
def _forward_kernel(
    logits, padding, probs, routing_map, partial_counts, partial_sums,
    num_tokens, num_tiles,
    E: tl.constexpr, TILE_T: tl.constexpr, TILE_E: tl.constexpr, HAS_PADDING: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Route `num_tiles` tiles of TILE_T tokens; write their counts and sums as one partial row."""
    program = tl.program_id(0)
    experts = tl.arange(0, TILE_E)
    tokens_per_expert = tl.zeros([TILE_E], tl.int32)
    sums = tl.zeros([TILE_E], tl.float32)
    num_valid = tl.zeros([TILE_T], tl.int32)
    num_without = tl.zeros([TILE_T], tl.int32)
    for i in range(0, num_tiles):
        tokens = (program.to(tl.int64) * num_tiles + i) * TILE_T + tl.arange(0, TILE_T)
        is_token = tokens < num_tokens
        inside = is_token[:, None] & (experts < E)[None, :]
        where = tokens[:, None] * E + experts[None, :]
        x = tl.load(logits + where, mask=inside, other=0.0).to(WIDE)
        prob = tl.where(x <= 0, 0.0, x)  # NaN stays NaN, and is inactive
        active = x > 0
        tl.store(probs + where, prob.to(probs.dtype.element_ty), mask=inside)
        tl.store(routing_map + where, active.to(tl.uint8), mask=inside)
        valid = is_token
        if HAS_PADDING:
            valid = valid & (tl.load(padding + tokens, mask=is_token, other=1) == 0)
        counted = (active & valid[:, None]).to(tl.int32)
        tokens_per_expert += tl.sum(counted, axis=0)
        sums += tl.sum(tl.where(valid[:, None], prob.to(tl.float32), 0.0), axis=0)
        num_valid += valid.to(tl.int32)
        num_without += (valid & (tl.max(counted, axis=1) == 0)).to(tl.int32)
    row = partial_counts + program * (E + 2)
    tl.store(row + experts, tokens_per_expert, mask=experts < E)
    tl.store(row + E, tl.sum(num_valid, axis=0))
    tl.store(row + E + 1, tl.sum(num_without, axis=0))
    tl.store(partial_sums + program * E + experts, sums, mask=experts < E)


@triton.jit
def _reduce_kernel(
    partial_counts, partial_sums, counts, sums, num_rows,
    E: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add the partial rows up, in their order."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    count = tl.zeros([COLUMNS], tl.int64)
    total = tl.zeros([COLUMNS], tl.float32)
    for first in range(0, num_rows, ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None]
        where = rows[:, None] * (E + 2) + columns[None, :]
        part = tl.load(partial_counts + where, mask=inside & (columns < E + 2)[None, :], other=0)
        count += tl.sum(part.to(tl.int64), axis=0)
        where = rows[:, None] * E + columns[None, :]
        total += tl.sum(
            tl.load(partial_sums + where, mask=inside & (columns < E)[None, :], other=0.0), axis=0
        )
    tl.store(counts + columns, count, mask=columns < E + 2)
    tl.store(sums + columns, total, mask=columns < E)


@triton.jit
def _backward_kernel(
    grad_probs, grad_per_expert, routing_map, padding, grad_logits, num_elements,
    E: tl.constexpr, ELEMENTS: tl.constexpr, HAS_PADDING: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """(grad_probs + grad_per_expert * [no padding]) * [active]."""
    where = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = where < num_elements
    active = tl.load(routing_map + where, mask=inside, other=0) != 0
    # Few are active where routing is sparse: whole sectors of the gradient need not be read.
    grad = tl.load(grad_probs + where, mask=active, other=0.0).to(WIDE)
    constant = tl.load(grad_per_expert + where % E)
    if HAS_PADDING:
        is_padding = tl.load(padding + where // E, mask=inside, other=1) != 0
        constant = tl.where(is_padding, 0.0, constant)
    total = tl.where(active, grad + constant, 0.0)
    tl.store(grad_logits + where, total.to(grad_logits.dtype.element_ty), mask=inside)


class ReLURouter(torch.autograd.Function):
    """`remoe.kernels.relu_router.relu_router` with both kernels."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One pass over contiguous logits. Of them the backward keeps a byte each: the map."""
        probs, routing_map, counts, probs_per_expert = _forward(logits, padding_mask)
        ctx.mark_non_differentiable(routing_map, counts)
        ctx.set_materialize_grads(False)  # for the map it would be zeros of its size
        ctx.save_for_backward(routing_map, padding_mask)
        ctx.dtype = logits.dtype
        return probs, routing_map, counts, probs_per_expert

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        grad_probs: Tensor | None,
        _map: None,
        _counts: None,
        grad_per_expert: Tensor | None,
    ) -> tuple[Tensor, None]:
        """One pass over the gradient."""
        routing_map, padding_mask = ctx.saved_tensors
        if grad_probs is None:
            grad_probs = routing_map.new_zeros(routing_map.shape, dtype=ctx.dtype)
        if grad_per_expert is None:
            grad_per_expert = routing_map.new_zeros(routing_map.shape[1], dtype=torch.float32)
        return _backward(grad_probs, grad_per_expert, routing_map, padding_mask), None


def _forward(logits: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_tokens, num_experts = logits.shape
    tile_e = triton.next_power_of_2(num_experts)
    tile_t = max(1, TILE // tile_e)
    num_tiles = max(1, triton.cdiv(triton.cdiv(num_tokens, tile_t), MAX_PROGRAMS))
    num_programs = max(1, triton.cdiv(num_tokens, tile_t * num_tiles))
    probs = torch.empty_like(logits)
    routing_map = torch.empty(logits.shape, dtype=torch.bool, device=logits.device)
    partial_counts = logits.new_empty((num_programs, num_experts + 2), dtype=torch.int32)
    partial_sums = logits.new_empty((num_programs, num_experts), dtype=torch.float32)
    counts = logits.new_empty(num_experts + 2, dtype=torch.int64)
    sums = logits.new_empty(num_experts, dtype=torch.float32)
    with torch.cuda.device_of(logits):
        _forward_kernel[(num_programs,)](
            logits, _bytes(padding_mask, logits), probs, routing_map.view(torch.uint8),
            partial_counts, partial_sums, num_tokens, num_tiles,
            E=num_experts, TILE_T=tile_t, TILE_E=tile_e, HAS_PADDING=padding_mask is not None,
            WIDE=_wide(logits),
        )  # fmt: skip
        _reduce_kernel[(triton.cdiv(num_experts + 2, COLUMNS),)](
            partial_counts, partial_sums, counts, sums, num_programs,
            E=num_experts, COLUMNS=COLUMNS, ROWS=ROWS,
        )  # fmt: skip
    return probs, routing_map, counts, sums


def _backward(
    grad_probs: Tensor, grad_per_expert: Tensor, routing_map: Tensor, padding_mask: Tensor | None
) -> Tensor:
    grad_probs, grad_per_expert = grad_probs.contiguous(), grad_per_expert.contiguous()
    grad_logits = torch.empty_like(grad_probs)
    if grad_probs.numel() == 0:
        return grad_logits
    with torch.cuda.device_of(grad_probs):
        _backward_kernel[(triton.cdiv(grad_probs.numel(), ELEMENTS),)](
            grad_probs, grad_per_expert, routing_map.view(torch.uint8),
            _bytes(padding_mask, grad_probs), grad_logits, grad_probs.numel(),
            E=routing_map.shape[1], ELEMENTS=ELEMENTS, HAS_PADDING=padding_mask is not None,
            WIDE=_wide(grad_probs),
        )  # fmt: skip
    return grad_logits


def _wide(tensor: Tensor) -> tl.dtype:
    """What its values are computed in."""
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


def _bytes(padding_mask: Tensor | None, unused: Tensor) -> Tensor:
    """The mask as bytes; without one, a tensor that the kernel is given and does not read."""
    return unused if padding_mask is None else padding_mask.contiguous().view(torch.uint8)
