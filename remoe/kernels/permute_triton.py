# mypy: allow-untyped-defs
"""Triton kernels of `remoe.kernels.permute`: the ids of the rows, a gather, and a sum by token."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from remoe.kernels.permute import RowIds

TILE = 2048  # entries of [num_tokens, num_experts] that a program of the ids holds
COLUMNS = 1024  # of hidden that a program of gather and sum holds at most


@triton.jit
def _ids_kernel(
    routing_map, ranks, starts, tokens, pairs, rows_by_token, num_tokens, num_rows,
    E: tl.constexpr, TILE_T: tl.constexpr, TILE_E: tl.constexpr,
):  # fmt: skip
    """Each active pair writes what it is to its row, and its row to its token's list."""
    t = tl.program_id(0).to(tl.int64) * TILE_T + tl.arange(0, TILE_T)
    e = tl.arange(0, TILE_E)
    inside = (t < num_tokens)[:, None] & (e < E)[None, :]
    pair = t[:, None] * E + e[None, :]
    active = tl.load(routing_map + pair, mask=inside, other=0) != 0
    where = e[None, :].to(tl.int64) * num_tokens + t[:, None]
    row = tl.load(ranks + where, mask=active, other=0).to(tl.int64) - 1
    kept = active & (row < num_rows)
    first = tl.load(starts + t, mask=t < num_tokens, other=0)
    slot = first[:, None] + tl.cumsum(kept.to(tl.int32), axis=1) - 1
    tl.store(tokens + row, tl.zeros_like(pair) + t[:, None], mask=kept)
    tl.store(pairs + row, pair, mask=kept)
    tl.store(rows_by_token + slot, row, mask=kept)


@triton.jit
def _gather_kernel(source, tokens, rows, num_tokens, H: tl.constexpr, COLUMNS: tl.constexpr):
    """A part of one row; zeros where it stands for no pair."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.load(tokens + row)
    end = tl.where(token < num_tokens, H, 0)
    x = tl.load(source + token * H + h, mask=h < end, other=0.0)
    tl.store(rows + row * H + h, x, mask=h < H)


@triton.jit
def _sum_kernel(
    rows, rows_by_token, starts, output,
    H: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A part of one token: its rows, one after another."""
    token = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], WIDE)
    for i in range(tl.load(starts + token), tl.load(starts + token + 1)):
        row = tl.load(rows_by_token + i)
        total += tl.load(rows + row * H + h, mask=h < H, other=0.0).to(WIDE)
    tl.store(output + token * H + h, total.to(output.dtype.element_ty), mask=h < H)


def row_ids(routing_map: Tensor, num_rows: int) -> RowIds:
    """`RowIds` of a map, without a wait for the device."""
    routing_map = routing_map.contiguous()
    num_tokens, num_experts = routing_map.shape
    # One more than the row of each active pair.
    ranks = routing_map.T.reshape(-1).cumsum(0, dtype=torch.int32).view(num_experts, num_tokens)
    counts = (routing_map & ranks.le(num_rows).T).sum(1)
    starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    tokens = starts.new_full((num_rows,), num_tokens)
    pairs = starts.new_full((num_rows,), routing_map.numel())
    rows_by_token = starts.new_zeros(num_rows)
    tile_e = triton.next_power_of_2(num_experts)
    tile_t = max(1, TILE // tile_e)
    if routing_map.numel():
        with torch.cuda.device_of(routing_map):
            _ids_kernel[(triton.cdiv(num_tokens, tile_t),)](
                routing_map.view(torch.uint8), ranks, starts, tokens, pairs, rows_by_token,
                num_tokens, num_rows, E=num_experts, TILE_T=tile_t, TILE_E=tile_e,
            )  # fmt: skip
    return RowIds(tokens, pairs, rows_by_token, starts)


def gather(source: Tensor, ids: RowIds) -> Tensor:
    """``source_t`` for the token t of each row; `source` is contiguous."""
    rows = source.new_empty(len(ids.tokens), source.shape[1])
    if rows.numel():
        grid, columns = _grid(rows)
        with torch.cuda.device_of(rows):
            _gather_kernel[grid](
                source, ids.tokens, rows, len(source), H=source.shape[1], COLUMNS=columns
            )
    return rows


def sum_by_token(rows: Tensor, ids: RowIds) -> Tensor:
    """Sum of each token's rows, in their order; `rows` is contiguous."""
    output = rows.new_empty(len(ids.starts) - 1, rows.shape[1])
    if output.numel():
        grid, columns = _grid(output)
        with torch.cuda.device_of(output):
            _sum_kernel[grid](
                rows, ids.rows_by_token, ids.starts, output, H=rows.shape[1], COLUMNS=columns,
                WIDE=tl.float64 if rows.dtype == torch.float64 else tl.float32,
            )  # fmt: skip
    return output


def _grid(output: Tensor) -> tuple[tuple[int, int], int]:
    """A program for each row and each so many columns of it."""
    columns = min(COLUMNS, triton.next_power_of_2(output.shape[1]))
    return (output.shape[0], triton.cdiv(output.shape[1], columns)), columns
