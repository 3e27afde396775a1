"""Running sums of what routers decide, on the device, without a read by the host."""

import math

import numpy as np
import torch
from torch import Tensor

from remoe.analysis.record import RoutingRecord


class RoutingCounters:
    """The sums of a `RoutingRecord`, of this rank until they are reduced.

    With L MoE layers, E experts, D domains, V token ids, of which the first N are followed, it holds
    ``8 (V + V L + D + D L E + (N + 1) L E + L (E + 1)) + 20 L E`` bytes: 12 MB for V = 50,304, L = 24,
    E = 8, D = 8, N = 1,024. All sums of integers are exact; sums of gates are in fp64.

    Args:
        num_layers: L, of the whole model.
        num_experts: E.
        num_domains: D.
        vocab_size: V.
        num_followed: N, at most V.
        device: Of the buffers.
    """

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        num_domains: int,
        vocab_size: int,
        num_followed: int,
        device: torch.device | str | int,
    ) -> None:
        shapes = {
            "token_count": (vocab_size,),
            "token_active": (num_layers, vocab_size),
            "domain_tokens": (num_domains,),
            "domain_tokens_per_expert": (num_layers, num_domains, num_experts),
            # The last row takes the tokens that are not followed.
            "token_tokens_per_expert": (num_layers, num_followed + 1, num_experts),
            "experts_per_token": (num_layers, num_experts + 1),
        }
        sizes = [math.prod(shape) for shape in shapes.values()]
        self.num_followed = num_followed
        self._all = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        parts = zip(shapes, self._all.split(sizes), shapes.values(), strict=True)
        self._counts = {name: part.view(shape) for name, part, shape in parts}
        gates = (num_layers, num_experts)
        self._gate_sums = torch.zeros(2, *gates, dtype=torch.float64, device=device)
        self._gate_max = torch.zeros(gates, dtype=torch.float32, device=device)

    @torch.no_grad()
    def add(
        self, layer: int, probs: Tensor, routing_map: Tensor, token_ids: Tensor, domains: Tensor
    ) -> None:
        """Add a micro-batch of one layer. Tokens themselves are counted with layer 0.

        Args:
            layer: Index among the MoE layers, from 0.
            probs: ``[num_tokens, num_experts]``.
            routing_map: The same shape, bool.
            token_ids: ``[num_tokens]`` int64.
            domains: ``[num_tokens]`` int64.
        """
        counts, active = self._counts, routing_map.long()
        num_active, ones = active.sum(dim=1), torch.ones_like(token_ids)
        counts["token_active"][layer].index_add_(0, token_ids, num_active)
        counts["domain_tokens_per_expert"][layer].index_add_(0, domains, active)
        followed = token_ids.clamp(max=self.num_followed)
        counts["token_tokens_per_expert"][layer].index_add_(0, followed, active)
        counts["experts_per_token"][layer].index_add_(0, num_active, ones)
        if layer == 0:
            counts["token_count"].index_add_(0, token_ids, ones)
            counts["domain_tokens"].index_add_(0, domains, ones)
        gates = probs.detach().double() * routing_map
        self._gate_sums[0, layer] += gates.sum(dim=0)
        self._gate_sums[1, layer] += gates.square().sum(dim=0)
        largest = torch.maximum(self._gate_max[layer], gates.amax(dim=0).float())
        self._gate_max[layer] = largest

    def reset(self) -> None:
        """Begin anew."""
        for sums in (self._all, self._gate_sums, self._gate_max):
            sums.zero_()

    def reduce(self) -> None:
        """Bring the sums of all ranks together on rank 0; those of others are void then."""
        torch.distributed.reduce(self._all, 0)
        torch.distributed.reduce(self._gate_sums, 0)
        torch.distributed.reduce(self._gate_max, 0, op=torch.distributed.ReduceOp.MAX)

    def to_record(self, meta: dict) -> RoutingRecord:
        """The sums as they are now; domains beyond ``meta["domain_names"]`` are left out."""
        counts = {name: count.cpu().numpy() for name, count in self._counts.items()}
        by_domain = counts["domain_tokens_per_expert"].swapaxes(0, 1)[: len(meta["domain_names"])]
        domain_tokens = counts["domain_tokens"][: len(meta["domain_names"])]
        gate_sum, gate_square_sum = self._gate_sums.cpu().numpy()
        arrays = {
            "num_tokens": domain_tokens.sum(),
            "tokens_per_expert": by_domain.sum(axis=0),
            "experts_per_token": counts["experts_per_token"],
            "gate_sum": gate_sum,
            "gate_square_sum": gate_square_sum,
            "gate_max": self._gate_max.cpu().numpy(),
            "domain_tokens": domain_tokens,
            "domain_tokens_per_expert": by_domain,
            "token_count": counts["token_count"],
            "token_active": counts["token_active"].T,
            "token_expert_ids": np.arange(self.num_followed),
            "token_tokens_per_expert": counts["token_tokens_per_expert"][:, :-1].swapaxes(0, 1),
        }
        # Copies: on the CPU these are the buffers themselves, which the next step changes.
        return RoutingRecord(meta, **{name: np.array(a, order="C") for name, a in arrays.items()})
