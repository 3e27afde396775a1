"""What a Hugging Face model gives on sequences: its loss, and what its layers see and choose."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS_AT_ONCE = 4096


class Measured(NamedTuple):
    """A model on text.

    Attributes:
        loss: Mean cross entropy of the next token, in nats.
        active_experts: Mean active experts a token of each layer with experts; empty without.
    """

    loss: float
    active_experts: list[float]

    @property
    def mean_active(self) -> float:
        """Over the layers with experts; 0 without."""
        return sum(self.active_experts) / max(len(self.active_experts), 1)

    def __str__(self) -> str:
        if not self.active_experts:
            return f"loss {self.loss:.4f}"
        layers = " ".join(f"{active:.2f}" for active in self.active_experts)
        return f"loss {self.loss:.4f}, active experts {self.mean_active:.3f} (by layer {layers})"


def batches_of(sequences: Tensor) -> tuple[Tensor, ...]:
    """Sequences in batches of about `TOKENS_AT_ONCE` tokens."""
    return sequences.split(max(1, TOKENS_AT_ONCE // sequences.shape[1]))


@torch.no_grad()
def measure(model: nn.Module, sequences: Tensor) -> Measured:
    """Loss of a causal language model, and active experts if it is a ReMoE model.

    Args:
        model: In evaluation mode.
        sequences: ``[num_sequences, sequence_length]`` ids.

    Raises:
        ValueError: If the loss is no number, as it is where weights are damaged.
    """
    routers = routers_of(model)
    loss, active = 0.0, torch.zeros(len(routers), dtype=torch.float64)

    def count(index: int):
        def hook(module: nn.Module, args: tuple, output: tuple) -> None:
            active[index] += int(output[2].sum())

        return hook

    hooks = [router.register_forward_hook(count(i)) for i, router in enumerate(routers)]
    try:
        for batch in batches_of(sequences):
            batch = batch.to(model.device)
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
            losses = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            loss += losses.item()
    finally:
        for hook in hooks:
            hook.remove()
    if not math.isfinite(loss):
        raise ValueError(f"the loss of the {model.config.model_type} model on the text is {loss}")
    num_sequences, length = sequences.shape
    return Measured(loss / (num_sequences * (length - 1)), (active / sequences.numel()).tolist())


@torch.no_grad()
def record_inputs(model: nn.Module, modules: list[nn.Module], sequences: Tensor) -> list[Tensor]:
    """What modules are given as their first argument, over all tokens.

    Args:
        model: In evaluation mode; run on `sequences`.
        modules: Parts of it, each run once a forward pass.
        sequences: ``[num_sequences, sequence_length]`` ids.

    Returns:
        For each module ``[num_tokens, h]`` fp32 on the CPU: ``4 h`` bytes a token and module.
    """
    recorded: list[list[Tensor]] = [[] for _ in modules]

    def keep(index: int):
        def hook(module: nn.Module, args: tuple) -> None:
            recorded[index].append(args[0].flatten(0, -2).float().cpu())

        return hook

    hooks = [module.register_forward_pre_hook(keep(i)) for i, module in enumerate(modules)]
    try:
        for batch in batches_of(sequences):
            model(input_ids=batch.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(parts) for parts in recorded]


def routers_of(model: nn.Module) -> list[nn.Module]:
    """The routers of a ReMoE model, in the order of its layers; none of another model."""
    return [module for module in model.modules() if type(module).__name__ == "ReMoERouter"]
