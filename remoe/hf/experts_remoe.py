"""The experts of a layer: the rows of each in one product after another, or all in one call."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from .configuration_remoe import ReMoEConfig

# torch's grouped_mm refuses rows that do not begin at a multiple of it.
ALIGNMENT = 16  # bytes
GROUPED_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def has_grouped_mm(dtype: torch.dtype, *widths: int) -> bool:
    """Whether torch's `grouped_mm` takes rows and weights of this dtype and these widths."""
    is_aligned = all(width * dtype.itemsize % ALIGNMENT == 0 for width in widths)
    return hasattr(F, "grouped_mm") and dtype in GROUPED_DTYPES and is_aligned


def grouped_mm(rows: Tensor, weight: Tensor, tokens_per_expert: Tensor) -> Tensor:
    """``rows_e @ weight_e^T`` for each expert e, by one call of `torch.nn.functional.grouped_mm`.

    Args:
        rows: ``[num_rows, in]``, those of expert 0 first.
        weight: ``[num_experts, out, in]``.
        tokens_per_expert: ``[num_experts]`` int64 that sum to `num_rows`; zeros are allowed.

    Returns:
        ``[num_rows, out]``.
    """
    ends = tokens_per_expert.cumsum(0, dtype=torch.int32)
    product = F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)
    if product.requires_grad:  # its kernels refuse an expanded gradient, such as that of a sum
        product.register_hook(Tensor.contiguous)
    return product


def loop_of_mm(rows: Tensor, weight: Tensor, tokens_per_expert: Tensor) -> Tensor:
    """`grouped_mm` by one product after another; see there."""
    parts = rows.split(tokens_per_expert.tolist())
    return torch.cat([F.linear(x, w) for x, w in zip(parts, weight.unbind(), strict=True)])


class ReMoEExperts(nn.Module):
    """``y_t = sum_e down_e (act(gate_e x_t) * up_e x_t * p_te)`` over the experts with ``p_te > 0``.

    Computed only where a gate is positive. `config._experts_implementation` is "loop", or
    "grouped_mm", which falls back to the loop where torch's kernel takes no such widths or dtype.
    """

    def __init__(self, config: ReMoEConfig) -> None:
        super().__init__()
        self.config = config
        num_experts, width = config.num_experts, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * width, config.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, config.hidden_size, width))
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor, probs: Tensor, routing_map: Tensor) -> Tensor:
        """Run each token's experts.

        Args:
            hidden_states: ``[num_tokens, h]``.
            probs: Gate values ``[num_tokens, num_experts]``, of the router's dtype.
            routing_map: Where they are positive, bool.

        Returns:
            ``[num_tokens, h]`` in the dtype of the experts' products; zeros for a token without expert.
        """
        dtype = _compute_dtype(hidden_states)
        by_expert = routing_map.t()
        _, token_of_row = by_expert.nonzero(as_tuple=True)  # rows of expert 0 first
        probs_of_row = probs.t()[by_expert].unsqueeze(-1)
        multiply, lengths = self._multiply(dtype), routing_map.sum(dim=0)
        rows = hidden_states.to(dtype).index_select(0, token_of_row)
        gate, up = multiply(rows, self.gate_up_proj.to(dtype), lengths).float().chunk(2, dim=-1)
        active = (self.act_fn(gate) * up * probs_of_row).to(dtype)
        rows = multiply(active, self.down_proj.to(dtype), lengths)
        return torch.zeros_like(hidden_states, dtype=dtype).index_add(0, token_of_row, rows)

    def _multiply(self, dtype: torch.dtype) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        _, hidden_size, width = self.down_proj.shape
        wants_it = self.config._experts_implementation != "loop"
        return grouped_mm if wants_it and has_grouped_mm(dtype, hidden_size, width) else loop_of_mm


def _compute_dtype(hidden_states: Tensor) -> torch.dtype:
    """That of `hidden_states`, or autocast's, which does not reach into every product used here."""
    device = hidden_states.device.type
    return (
        torch.get_autocast_dtype(device)
        if torch.is_autocast_enabled(device)
        else hidden_states.dtype
    )
