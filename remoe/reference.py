"""The truth that tests compare with: a dense loop over experts in plain PyTorch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remoe.regularization import expert_load, l1_loss
from remoe.routing import relu_routing


class ReferenceReMoELayer(nn.Module):
    """A ReMoE layer that computes every expert for every token.

    ``y_t = sum_e ReLU(x_t W)_e * FFN_e(x_t)`` with SwiGLU experts without bias. Slow and obvious on
    purpose: no dispatch, no permutation, no kernel.

    Args:
        hidden_size: ``h``.
        ffn_hidden_size: Width ``f`` of one expert.
        num_experts: ``E``.
        topk: ``k``, target of active experts a token; only the regulariser uses it.
        load_balancing: Eq. 10 if true, eq. 9 if false.

    Source: arXiv 2412.14711, eq. 1, 5, 9, 10.
    """

    def __init__(
        self,
        hidden_size: int,
        ffn_hidden_size: int,
        num_experts: int,
        topk: int = 1,
        load_balancing: bool = True,
    ) -> None:
        super().__init__()
        self.topk = topk
        self.load_balancing = load_balancing
        shape_in = (num_experts, ffn_hidden_size, hidden_size)
        self.router = nn.Parameter(torch.randn(num_experts, hidden_size) / math.sqrt(hidden_size))
        self.gate = nn.Parameter(torch.randn(shape_in) / math.sqrt(hidden_size))
        self.up = nn.Parameter(torch.randn(shape_in) / math.sqrt(hidden_size))
        shape_out = (num_experts, hidden_size, ffn_hidden_size)
        self.down = nn.Parameter(torch.randn(shape_out) / math.sqrt(ffn_hidden_size))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the layer.

        Args:
            hidden_states: ``[num_tokens, hidden_size]``.

        Returns:
            Output ``[num_tokens, hidden_size]``; ``probs`` and ``routing_map``
            ``[num_tokens, num_experts]``; the L1 loss before its coefficient, scalar fp32.
        """
        probs, routing_map = relu_routing(F.linear(hidden_states, self.router))
        output = torch.zeros_like(hidden_states)
        for e in range(probs.shape[1]):
            expert = F.silu(F.linear(hidden_states, self.gate[e]))
            expert = expert * F.linear(hidden_states, self.up[e])
            output = output + probs[:, e : e + 1] * F.linear(expert, self.down[e])
        load = None
        if self.load_balancing:
            load = expert_load(routing_map.sum(dim=0), self.topk, probs.shape[0])
        return output, probs, routing_map, l1_loss(probs, load)
