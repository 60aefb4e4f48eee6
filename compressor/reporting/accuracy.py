"""Scores image by image, so that two networks can be compared on the very same images."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.network import Row
from compressor.reporting.intervals import paired


def change(before: NDArray[Any], after: NDArray[Any], better: int = 1) -> Row:
    """What became of the images: two scores of each of the same N images, N at least 1.

    Bool scores are right and wrong answers. Of others, which ``better`` times rises with, those
    that got worse are lost and those that got better won; the interval is the normal one of the
    mean difference.
    """
    count = len(before)
    if before.dtype != np.bool_:
        gap = after.astype(np.float64) - before
        spread = 1.96 * float(gap.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
        mean = float(gap.mean())
        return {
            "images": count,
            "lost": int((better * gap < 0).sum()),
            "won": int((better * gap > 0).sum()),
            "difference": mean,
            "interval": [mean - spread, mean + spread],
        }
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return {
        "images": count,
        "lost": lost,
        "won": won,
        "difference": (won - lost) / count,
        "interval": list(paired(lost, won, count)),
    }
