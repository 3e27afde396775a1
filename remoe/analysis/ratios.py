"""Division of counts where nothing over nothing has no value."""

import numpy as np
from numpy.typing import ArrayLike


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> np.ndarray:
    """``numerators / denominators`` in float64, broadcast; NaN where a denominator is 0."""
    above, below = np.broadcast_arrays(
        np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    )
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
