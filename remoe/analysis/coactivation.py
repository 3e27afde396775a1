"""Which experts of a layer are active for the same tokens."""

import numpy as np

from remoe.analysis.ratios import ratio


def coactivation(routing_map: np.ndarray) -> np.ndarray:
    """Probability that expert f is active where e is.

    Args:
        routing_map: ``[L, T, E]`` bool.

    Returns:
        ``[L, E, E]``: row e, column f; 1 on the diagonal, NaN in the row of an expert never used.
    """
    together = _together(routing_map)
    return ratio(together, np.diagonal(together, axis1=1, axis2=2)[..., None])


def lift(routing_map: np.ndarray) -> np.ndarray:
    """``P(e and f) / (P(e) P(f))``: 1 for experts that ignore each other, 0 for those never together.

    Args:
        routing_map: ``[L, T, E]`` bool.

    Returns:
        ``[L, E, E]``, symmetric; NaN for an expert never used.
    """
    together = _together(routing_map)
    active = np.diagonal(together, axis1=1, axis2=2)
    return ratio(together * routing_map.shape[1], active[:, :, None] * active[:, None, :])


def _together(routing_map: np.ndarray) -> np.ndarray:
    """Tokens for which both are active, ``[L, E, E]`` float64 (products of floats are fast)."""
    return np.stack([layer.T @ layer for layer in routing_map.astype(np.float64)])
