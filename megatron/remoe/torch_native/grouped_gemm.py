"""One product for each expert's rows, all in one call: by torch's `grouped_mm`, or by a loop."""

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.remoe import cpu

# `grouped_mm` refuses rows that do not begin at a multiple of it.
ALIGNMENT = 16  # bytes
GROUPED_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def has_grouped_mm(dtype: torch.dtype, *widths: int) -> bool:
    """Whether torch's `grouped_mm` takes matrices of these widths in one call that waits for nothing.

    On CUDA it does so for bf16 from compute capability 9.0 on; for others it copies the ends to the host
    and loops.

    Args:
        dtype: Of rows and weights.
        widths: Elements in a row of each matrix.
    """
    if not hasattr(F, "grouped_mm") or dtype not in GROUPED_DTYPES:
        return False
    is_aligned = all(width * dtype.itemsize % ALIGNMENT == 0 for width in widths)
    if cpu.is_needed():
        return is_aligned
    is_fast = dtype == torch.bfloat16 and torch.cuda.get_device_capability() >= (9, 0)
    return is_aligned and is_fast


def grouped_mm(rows: Tensor, weight: Tensor, tokens_per_expert: Tensor) -> Tensor:
    """``rows_e @ weight_e^T`` for each expert e, by `torch.nn.functional.grouped_mm`.

    Args:
        rows: ``[num_rows, in]``, those of expert 0 first.
        weight: ``[num_experts, out, in]``.
        tokens_per_expert: ``[num_experts]`` integers that sum to `num_rows`; zeros are allowed.

    Returns:
        ``[num_rows, out]``. An expert without rows gets a gradient of zeros.
    """
    # The kernel that reads it comes after the copy: nothing has to wait for it.
    counts = tokens_per_expert.to(rows.device, non_blocking=True)
    ends = counts.cumsum(0, dtype=torch.int32)
    product = F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)
    return _ContiguousGradient.apply(product)


def loop_of_mm(rows: Tensor, weight: Tensor, tokens_per_expert: Tensor) -> Tensor:
    """`grouped_mm` by one product after another, each written where it belongs; see there."""
    return _Loop.apply(rows, weight, tokens_per_expert.tolist())


class _ContiguousGradient(torch.autograd.Function):
    """The identity. The kernels of `grouped_mm` refuse an expanded gradient (that of a sum)."""

    @staticmethod
    def forward(ctx, product):
        return product.view_as(product)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous()


class _Loop(torch.autograd.Function):
    """Written out, because autograd of slices would copy every gradient once more to stack them."""

    @staticmethod
    def forward(ctx, rows, weight, lengths):
        ctx.save_for_backward(rows, weight)
        ctx.lengths = lengths
        product = rows.new_empty(rows.shape[0], weight.shape[1])
        for expert, (out, x) in enumerate(_by_expert(lengths, product, rows)):
            torch.mm(x, weight[expert].t(), out=out)
        return product

    @staticmethod
    def backward(ctx, gradient):
        rows, weight = ctx.saved_tensors
        rows_gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for expert, (g, x) in enumerate(_by_expert(ctx.lengths, gradient, rows)):
            if weight_gradient is not None:
                torch.mm(g.t(), x, out=weight_gradient[expert])  # of no rows: zeros
        if rows_gradient is not None:
            for expert, (g, out) in enumerate(_by_expert(ctx.lengths, gradient, rows_gradient)):
                torch.mm(g, weight[expert], out=out)
        return rows_gradient, weight_gradient, None


def _by_expert(lengths, *tensors):
    return zip(*(tensor.split(lengths) for tensor in tensors), strict=True)
