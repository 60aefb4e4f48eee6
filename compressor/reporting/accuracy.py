"""Accuracy image by image, so that two networks can be compared on the very same images."""

import numpy as np
from numpy.typing import NDArray

from compressor.network import Row
from compressor.reporting.intervals import paired


def change(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Row:
    """What became of the images: both bool (N,), N at least 1, of the same images."""
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    count = len(before)
    return {
        "images": count,
        "lost": lost,
        "won": won,
        "difference": (won - lost) / count,
        "interval": list(paired(lost, won, count)),
    }
