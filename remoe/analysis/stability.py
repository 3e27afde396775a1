"""What changes in routing between two checkpoints, on the same tokens."""

import numpy as np

from remoe.analysis.ratios import ratio


def flip_rate(routing_map: np.ndarray, earlier: np.ndarray) -> float:
    """Fraction of all (layer, token, expert) decisions that changed.

    ``sum_l ||M_i^l - M_{i-1}^l||_1 / (L T E)``. Source: eq. 14 of arXiv 2412.14711.

    Args:
        routing_map: ``[L, T, E]`` bool.
        earlier: The same tokens before.

    Raises:
        ValueError: If the shapes differ.
    """
    by_layer = flips_by_layer(routing_map, earlier)
    return float(by_layer.mean()) if by_layer.size else float("nan")


def flips_by_layer(routing_map: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """The flip rate of each layer, ``[L]``; its mean is `flip_rate`."""
    _check_same(routing_map, earlier)
    _, num_tokens, num_experts = routing_map.shape
    return ratio((routing_map != earlier).sum((1, 2)), num_tokens * num_experts)


def flip_count(routing_map: np.ndarray, earlier: np.ndarray) -> float:
    """Mean changed decisions a token and layer, ``E * flip_rate`` (eq. 15); leaving an expert for
    another is two.
    """
    return routing_map.shape[-1] * flip_rate(routing_map, earlier)


def saturation(routing_map: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Share of the last checkpoint's active (token, expert) pairs that were active already.

    A map with many active experts has a high share for that alone: with the two maps exchanged it is the
    share of the pairs active now that stay to the end, and both together say whether routing is settled.
    For k experts a token both are the overlap of the chosen sets, which OLMoE (arXiv 2409.02060)
    measures.

    Args:
        routing_map: ``[L, T, E]`` bool.
        last: The same tokens at the last checkpoint.

    Returns:
        ``[L]``; NaN where the last map has no active pair.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_same(routing_map, last)
    return ratio((routing_map & last).sum((1, 2)), last.sum((1, 2)))


def _check_same(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape:
        raise ValueError(f"maps of different shapes, {one.shape} and {other.shape}: give one text")
