"""SwiGLU of an expert's rows, times their gate values, with little kept for the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_swiglu_reference(hidden: Tensor, probs: Tensor) -> Tensor:
    """What `weighted_swiglu` computes, in the words of the formula."""
    gate, up = hidden.chunk(2, dim=-1)
    return (F.silu(gate) * up * probs).to(hidden.dtype)


def weighted_swiglu(hidden: Tensor, probs: Tensor) -> Tensor:
    """``silu(gate) * up * probs``, where ``hidden`` is gate and up side by side.

    Keeps its two arguments alone, ``2 ffn`` values a row: autograd would keep ``4 ffn``. Computes in
    fp32 or wider.

    Args:
        hidden: ``[num_rows, 2 * ffn]``.
        probs: Gate values ``[num_rows, 1]``, of any floating dtype.

    Returns:
        ``[num_rows, ffn]`` of the dtype of `hidden`.
    """
    return _WeightedSwiGLU.apply(hidden, probs)


class _WeightedSwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, probs: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, probs)
        gate, up = _wide(hidden).chunk(2, dim=-1)
        return F.silu(gate).mul_(up).mul_(probs).to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden, probs = ctx.saved_tensors
        wide = _wide(hidden)
        gate, up = wide.chunk(2, dim=-1)
        result = torch.empty_like(wide)
        gate_gradient, up_gradient = result.chunk(2, dim=-1)  # written in place: nothing to join
        silu, by_up = F.silu(gate), gradient * up
        probs_gradient = None
        if ctx.needs_input_grad[1]:
            probs_gradient = torch.linalg.vecdot(by_up, silu).unsqueeze(-1).to(probs.dtype)
        torch.mul(silu, gradient, out=up_gradient)
        up_gradient.mul_(probs)
        torch.ops.aten.silu_backward.grad_input(by_up.mul_(probs), gate, grad_input=gate_gradient)
        return result.to(hidden.dtype), probs_gradient


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
