"""Sparsity of neighbouring tokens together: what memory traffic and small batches see.

Experts must be read for a chunk if any of its tokens uses them. Source of the measure: chunk-level
sparsity, BlockFFN, arXiv 2507.08771.
"""

import numpy as np

SIZES = (1, 8, 64)


def chunk_sparsity(routing_map: np.ndarray, sequence_length: int, size: int) -> np.ndarray:
    """Fraction of experts that no token of a chunk uses, mean over chunks.

    Chunks lie within one sequence; what is left at its end is left out.

    Args:
        routing_map: ``[L, T, E]`` bool, sequence after sequence.
        sequence_length: Tokens of one sequence; divides T.
        size: Tokens of a chunk.

    Returns:
        ``[L]``; NaN where a sequence is shorter than a chunk.

    Raises:
        ValueError: If the sequences do not fill T, or `size` is not positive.
    """
    num_layers, num_tokens, num_experts = routing_map.shape
    if size < 1:
        raise ValueError(f"size {size}: give 1 token or more")
    if sequence_length < 1 or num_tokens % sequence_length:
        raise ValueError(f"sequence_length {sequence_length}: does not divide {num_tokens} tokens")
    num_chunks = sequence_length // size
    if num_chunks == 0 or num_tokens == 0:
        return np.full(num_layers, np.nan)
    sequences = routing_map.reshape(num_layers, -1, sequence_length, num_experts)
    chunks = sequences[:, :, : num_chunks * size].reshape(num_layers, -1, size, num_experts)
    return 1 - chunks.any(2).mean((1, 2))


def independent_sparsity(routing_map: np.ndarray, size: int) -> np.ndarray:
    """What `chunk_sparsity` would be if neighbours were drawn at random: ``mean_e (1 - p_e)^size``.

    Args:
        routing_map: ``[L, T, E]`` bool.
        size: Tokens of a chunk.

    Returns:
        ``[L]``; NaN without tokens.
    """
    if routing_map.shape[1] == 0:
        return np.full(len(routing_map), np.nan)
    return ((1 - routing_map.mean(1)) ** size).mean(-1)
