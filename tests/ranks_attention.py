"""What the ranks of a world run for tests of attention under context parallelism."""

import torch

from harness import layout
from moe_layers import make_config


def own_chunks(tensor, rank, size):
    """This rank's two of `2 * size` chunks along the first dimension."""
    if size == 1:
        return tensor
    chunks = tensor.chunk(2 * size)
    return torch.cat([chunks[rank], chunks[2 * size - 1 - rank]])


def attention_of_parts(size, cases):
    """Contexts and gradients of this rank's parts of sequences.

    Args:
        size: Context-parallel ranks.
        cases: Query, key, value ``[s, b, heads, d]`` and direction ``[s, b, heads * d]`` of whole
            sequences, and a mask ``[b, 1, s, s]``, True = do not look there, or None.

    Returns:
        Rank in the context-parallel group; by case, context and gradients of query, key and value.
    """
    from megatron.core import parallel_state

    with layout(context_parallel_size=size):
        rank = parallel_state.get_context_parallel_rank()
        return rank, [_attend(rank, size, *case) for case in cases]


def _attend(rank, size, query, key, value, direction, mask):
    from megatron.core.transformer.enums import AttnMaskType

    from megatron.remoe.torch_native import TorchAttention

    parts = [own_chunks(x, rank, size).requires_grad_() for x in (query, key, value)]
    if mask is not None:  # rows are queries
        mask = own_chunks(mask.movedim(2, 0), rank, size).movedim(0, 2)
    config = make_config(
        num_attention_heads=query.shape[2],
        kv_channels=query.shape[3],
        context_parallel_size=size,
        attention_dropout=0.0,
    )
    attention = TorchAttention(config, 1, AttnMaskType.causal, "self")
    context = attention(*parts, mask)
    context.backward(own_chunks(direction, rank, size))
    return context.detach(), *(part.grad for part in parts)
