"""Rows for the experts from tokens, and tokens from rows, for any number of experts a token."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from remoe.kernels.choice import triton_kernels


class RowIds(NamedTuple):
    """Where each row comes from, by row and by token. All int64, on the device of the map.

    Attributes:
        tokens: Token of each row ``[num_rows]``; `num_tokens` where a row stands for no pair.
        pairs: Place of each row's gate in the flattened ``[num_tokens, num_experts]``; one past the last
            where a row stands for no pair.
        rows_by_token: Rows of token 0, then of token 1, ..., each in the order of experts
            ``[num_rows]``. Behind those of the last token anything may stand.
        starts: Where each token's rows begin in `rows_by_token`, and where the last end
            ``[num_tokens + 1]``.
    """

    tokens: Tensor
    pairs: Tensor
    rows_by_token: Tensor
    starts: Tensor


def permute_reference(
    hidden_states: Tensor, probs: Tensor, routing_map: Tensor, num_rows: int
) -> tuple[Tensor, Tensor, RowIds]:
    """What `permute` computes, pair by pair, by indexing that autograd knows; absent rows are zero."""
    num_tokens, num_experts = routing_map.shape
    active = routing_map.T.nonzero().tolist()[:num_rows]
    absent = num_rows - len(active)
    tokens = [token for _, token in active]
    by_token = sorted(range(len(active)), key=lambda row: tokens[row])
    ids = RowIds(
        *(
            torch.tensor(numbers, dtype=torch.int64, device=routing_map.device)
            for numbers in (
                tokens + [num_tokens] * absent,
                [t * num_experts + e for e, t in active] + [num_tokens * num_experts] * absent,
                by_token + list(range(len(active), num_rows)),
                [sum(other < token for other in tokens) for token in range(num_tokens + 1)],
            )
        )
    )
    rows = F.pad(hidden_states, (0, 0, 0, 1))[ids.tokens]
    return rows, F.pad(probs.reshape(-1), (0, 1))[ids.pairs], ids


def unpermute_reference(rows: Tensor, ids: RowIds) -> Tensor:
    """What `unpermute` computes, by adding one row after another to its token, in fp32 or wider."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    output = torch.zeros(len(ids.starts), rows.shape[1], dtype=wide, device=rows.device)
    return output.index_add(0, ids.tokens, rows.to(wide))[:-1].to(rows.dtype)


def permute(
    hidden_states: Tensor, probs: Tensor, routing_map: Tensor, num_rows: int
) -> tuple[Tensor, Tensor, RowIds]:
    """Copy each token once for each of its experts: expert 0's tokens first, tokens ascending.

    ``rows_i = hidden_states_t(i)``, ``row_probs_i = probs_t(i),e(i)`` for the i-th active pair. Backward
    a token's gradient is the sum over its rows in the order of experts, accumulated in fp32 or wider.
    No atomics: the same bits each time. The device is not waited for.

    CUDA tensors go through Triton where it is installed, all others through torch.

    Args:
        hidden_states: ``[num_tokens, hidden]``.
        probs: Gate values ``[num_tokens, num_experts]``.
        routing_map: ``[num_tokens, num_experts]`` bool; a token may have 0 to E experts.
        num_rows: Rows to make. With more than there are active pairs the last ones hold anything, and
            what flows back to them is ignored; with fewer the last pairs are left out: compare.

    Returns:
        Rows ``[num_rows, hidden]``, their gate values ``[num_rows]``, and what `unpermute` needs.
    """
    with torch.no_grad():
        kernels = triton_kernels(hidden_states, "permute_triton")
        ids = (kernels.row_ids if kernels else _row_ids)(routing_map, num_rows)
    rows, row_probs = _Permute.apply(hidden_states, probs, *ids)
    return rows, row_probs, ids


def unpermute(rows: Tensor, ids: RowIds) -> Tensor:
    """Sum the rows of each token; zero for a token that has none.

    The gate is not applied here: in the experts it multiplies ``[num_rows, ffn]`` activations that their
    backward keeps anyway, here it would make the backward keep the ``[num_rows, hidden]`` rows for it.

    Args:
        rows: ``[num_rows, hidden]``.
        ids: Of `permute`.

    Returns:
        ``[num_tokens, hidden]`` of the dtype of `rows`, each token's sum in the order of experts,
        accumulated in fp32 or wider. Backward each row gets its token's gradient.
    """
    return _Unpermute.apply(rows, *ids)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_states: Tensor, probs: Tensor, *ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*ids)
        ctx.probs_shape = probs.shape
        pairs = RowIds(*ids).pairs
        if probs.numel() == 0:
            return _gather(hidden_states, RowIds(*ids)), probs.new_empty(len(pairs))
        row_probs = probs.reshape(-1).index_select(0, pairs.clamp(max=probs.numel() - 1))
        return _gather(hidden_states, RowIds(*ids)), row_probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, grad_row_probs: Tensor) -> tuple[Any, ...]:
        ids = RowIds(*ctx.saved_tensors)
        grad_hidden = _sum_by_token(grad_rows, ids) if ctx.needs_input_grad[0] else None
        grad_probs = None
        if ctx.needs_input_grad[1]:
            size = ctx.probs_shape.numel()
            grad_probs = grad_row_probs.new_zeros(size + 1)  # the last is for rows without a pair
            grad_probs = grad_probs.index_copy_(0, ids.pairs, grad_row_probs)[:size]
            grad_probs = grad_probs.view(ctx.probs_shape)
        return grad_hidden, grad_probs, None, None, None, None


class _Unpermute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, *ids: Tensor) -> Tensor:
        ctx.save_for_backward(*ids)
        return _sum_by_token(rows, RowIds(*ids))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        return _gather(grad_output, RowIds(*ctx.saved_tensors)), None, None, None, None


def _row_ids(routing_map: Tensor, num_rows: int) -> RowIds:
    num_tokens, num_experts = routing_map.shape
    size = routing_map.numel()
    # [num_experts, num_tokens]: nonzero goes through it in the order of rows.
    places = torch.nonzero_static(routing_map.T.reshape(-1), size=num_rows, fill_value=size)
    places = places.squeeze(1)
    experts = places.div(max(num_tokens, 1), rounding_mode="floor")
    tokens = places - experts * num_tokens
    is_absent = places == size
    tokens = tokens.masked_fill_(is_absent, num_tokens)
    pairs = (tokens * num_experts + experts).clamp_(max=size)
    counts = tokens.new_zeros(num_tokens + 2)
    counts.index_add_(0, tokens + 1, torch.ones_like(tokens))
    starts = counts[:-1].cumsum(0)
    return RowIds(tokens, pairs, tokens.argsort(stable=True), starts)


def _gather(source: Tensor, ids: RowIds) -> Tensor:
    """``source_t`` for the token t of each row: ``[num_tokens, hidden] -> [num_rows, hidden]``."""
    source = source.contiguous()
    if kernels := triton_kernels(source, "permute_triton"):
        return kernels.gather(source, ids)
    if len(source) == 0:
        return source.new_empty(len(ids.tokens), source.shape[1])
    return source.index_select(0, ids.tokens.clamp(max=len(source) - 1))


def _sum_by_token(rows: Tensor, ids: RowIds) -> Tensor:
    """Sum of each token's rows: ``[num_rows, hidden] -> [num_tokens, hidden]``."""
    rows = rows.contiguous()
    if kernels := triton_kernels(rows, "permute_triton"):
        return kernels.sum_by_token(rows, ids)
    num_tokens = len(ids.starts) - 1
    if rows.numel() == 0:
        return rows.new_zeros(num_tokens, rows.shape[1])
    # A bag a token, added in order, in fp32, without a copy of the rows; the last holds absent rows.
    bags = F.pad(ids.starts, (0, 1), value=len(rows))
    sums = F.embedding_bag(ids.rows_by_token, rows, bags, mode="sum", include_last_offset=True)
    return sums[:num_tokens]
