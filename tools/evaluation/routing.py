"""What routing did while a model ran: active experts, tokens without one, FLOPs; padding excluded."""

from types import TracebackType

import torch
from torch import Tensor, nn

from evaluation.layers import find_moe_layers, flops_of_a_score, flops_of_every_token


class RoutingMeter:
    """Counts, by hooks on the routers, what the tokens that `keep` names cost.

    A forward pass only notes how many experts each position of the padded batch used; which of these
    are tokens is known to the caller, who says so row by row.

    Args:
        model: Of either form, with `config`.
        sequence_first: Whether its routers see ``[sequence, batch]`` rather than ``[batch, sequence]``
            (Megatron's do).
    """

    def __init__(self, model: nn.Module, sequence_first: bool) -> None:
        self._layers = find_moe_layers(model)
        self._sequence_first = sequence_first
        self._flops_of_every_token = flops_of_every_token(model, self._layers)
        self._flops_of_a_score = flops_of_a_score(model)
        self._active: list[Tensor | None] = [None] * len(self._layers)
        self._handles: list = []
        self.reset()

    def __enter__(self) -> "RoutingMeter":
        self._handles = [
            layer.router.register_forward_hook(self._make_hook(i))
            for i, layer in enumerate(self._layers)
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def reset(self) -> None:
        """Start counting anew."""
        self.num_tokens = 0
        self._num_active = [0] * len(self._layers)
        self._num_without = [0] * len(self._layers)
        self._num_scores = 0

    def begin(self, batch: int, length: int) -> None:
        """Say the shape of the padded batch that the model is given next."""
        self._shape = (batch, length)
        self._active = [None] * len(self._layers)

    def keep(self, row: int, length: int) -> None:
        """Count the first `length` positions of `row` of the batch that the model was given last."""
        self.num_tokens += length
        self._num_scores += length * (length + 1) // 2
        for i, active in enumerate(self._active):
            if active is not None:
                kept = active[row, :length]
                self._num_active[i] += int(kept.sum())
                self._num_without[i] += int((kept == 0).sum())

    def active_experts(self) -> Tensor | None:
        """Of the last batch: ``[num_moe_layers, batch, length]``, or None for a dense model."""
        return torch.stack(self._active) if self._layers else None

    def summary(self) -> dict | None:
        """What the kept tokens cost; None before there are any.

        Returns:
            `tokens`; `flops_per_token`; with experts also `num_experts`, `active_experts` and
            `tokens_without_expert` (means over tokens and MoE layers), and the same by layer.
        """
        if not self.num_tokens:
            return None
        in_experts = sum(
            active * layer.flops_per_expert
            for active, layer in zip(self._num_active, self._layers, strict=True)
        )
        per_token = (in_experts + self._num_scores * self._flops_of_a_score) / self.num_tokens
        summary = {
            "tokens": self.num_tokens,
            "flops_per_token": self._flops_of_every_token + per_token,
        }
        if self._layers:
            by_layer = [count / self.num_tokens for count in self._num_active]
            without = [count / self.num_tokens for count in self._num_without]
            summary |= {
                "num_experts": max(layer.num_experts for layer in self._layers),
                "active_experts": sum(by_layer) / len(by_layer),
                "tokens_without_expert": sum(without) / len(without),
                "active_experts_by_layer": by_layer,
                "tokens_without_expert_by_layer": without,
            }
        return summary

    def _make_hook(self, index: int) -> object:
        def note(router: nn.Module, inputs: tuple, output: tuple) -> None:
            batch, length = self._shape
            active = num_active(output[-1])
            if self._sequence_first:
                self._active[index] = active.view(length, batch).T
            else:
                self._active[index] = active.view(batch, length)

        return note


def num_active(routing: Tensor) -> Tensor:
    """Active experts of each token, ``[num_tokens]``.

    Args:
        routing: A routing map, ``[num_tokens, num_experts]`` bool; gates of the same shape, of which the
            positive count; or indices, ``[num_tokens, k]`` integers.
    """
    routing = routing.detach().flatten(0, -2)
    if routing.dtype == torch.bool:
        return routing.sum(-1)
    if routing.is_floating_point():
        return (routing > 0).sum(-1)
    return torch.full_like(routing[:, 0], routing.shape[-1])
