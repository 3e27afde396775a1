"""torch's RMSNorm and LayerNorm under sequence parallelism."""

import copy

from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import nn


def torch_norm(config: TransformerConfig, hidden_size: int, eps: float = 1e-5) -> nn.Module:
    """Build torch's norm as Megatron does, also where each tensor-parallel rank has other tokens.

    Megatron's `WrappedTorchNorm` refuses sequence parallelism only because it does not mark the
    parameters: each rank then sees the gradient of its own tokens, and Megatron's finalize step sums
    those that carry `sequence_parallel`.

    Args:
        config: Decides on RMSNorm or LayerNorm.
        hidden_size: Length of the last dimension.
        eps: Added to the variance.
    """
    alone = copy.copy(config)
    alone.sequence_parallel = False
    norm = WrappedTorchNorm(alone, hidden_size, eps)
    for parameter in norm.parameters():
        parameter.sequence_parallel = config.sequence_parallel
    return norm
