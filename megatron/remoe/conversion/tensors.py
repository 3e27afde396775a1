"""The tensors that lie differently in the two forms, each function beside its inverse."""

import torch
from torch import Tensor


def split_qkv(fused: Tensor, num_groups: int, head_dim: int) -> list[Tensor]:
    """Megatron's fused projection -> queries, keys, values.

    Args:
        fused: ``[num_groups * (heads a group + 2) * head_dim, ...]``: for each query group its
            query heads, then its key, then its value; a weight, or a bias without further dimensions.
        num_groups: Query groups.
        head_dim: Of one head.

    Returns:
        ``[num_heads * head_dim, ...]`` and twice ``[num_groups * head_dim, ...]``.
    """
    groups = fused.reshape(num_groups, -1, head_dim, *fused.shape[1:])
    heads = groups.shape[1] - 2
    parts = groups.split([heads, 1, 1], dim=1)
    return [part.reshape(-1, *fused.shape[1:]) for part in parts]


def join_qkv(parts: list[Tensor], num_groups: int, head_dim: int) -> Tensor:
    """The inverse of `split_qkv`."""
    rest = parts[0].shape[1:]
    groups = [part.reshape(num_groups, -1, head_dim, *rest) for part in parts]
    return torch.cat(groups, dim=1).reshape(-1, *rest)


def split_gate_up(fused: Tensor) -> list[Tensor]:
    """The first projection of a SwiGLU ``[2 f, h]`` -> gate and up, ``[f, h]`` each."""
    return list(fused.chunk(2, dim=0))


def join_gate_up(parts: list[Tensor]) -> Tensor:
    """The inverse of `split_gate_up`."""
    return torch.cat(parts, dim=0)
