"""Thresholds: which weights a sensitivity keeps. Pure functions on arrays."""

import numpy as np
from numpy.typing import NDArray

from compressor.errors import StageError


def deviation(weights: NDArray[np.float32], name: str = "layer") -> float:
    """Population standard deviation over all weights of a layer, computed in float64.

    Raises :class:`StageError` for weights that are not finite.
    """
    if not np.isfinite(weights).all():
        raise StageError(f"{name} has weights that are NaN or infinite: the checkpoint is damaged")
    return float(np.std(weights, dtype=np.float64))


def magnitude_mask(
    weights: NDArray[np.float32], threshold: float, name: str = "layer"
) -> NDArray[np.bool_]:
    """True where |w| >= threshold and w is not 0; the weights' shape.

    With a threshold of sensitivity x standard deviation this is the rule of Han et al. 2015
    (section 3.1), which Deep Compression (section 2) builds on. Raises :class:`StageError` where
    nothing would be left of a layer.
    """
    magnitudes = np.abs(weights)
    # In float64: NumPy would round a plain float to the weights' type before it compares.
    mask: NDArray[np.bool_] = (magnitudes >= np.float64(threshold)) & (magnitudes != 0)
    if weights.size and not mask.any():
        raise StageError(
            f"{name} would vanish: all its {weights.size:,} weights are below the threshold "
            f"{threshold:.4g} (the largest is {float(magnitudes.max()):.4g}); "
            "lower the prune sensitivity of this layer"
        )
    return mask
