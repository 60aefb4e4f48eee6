"""95 % intervals of an accuracy, and of a change of accuracy; those of times: ``resampling``."""

import math

Interval = tuple[float, float]

Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""


def wilson(share: float, count: int) -> Interval | None:
    """Of a fraction ``share`` of ``count`` images (Wilson 1927); None without images."""
    if count < 1:
        return None
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    spread = math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    half = Z * spread / (1 + Z * Z / count)
    low, high = middle - half, middle + half
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # share, also when rounded


def paired(lost: int, won: int, count: int) -> Interval:
    """Of the change of accuracy on the same ``count`` images, of which ``lost`` are right only
    before and ``won`` only after (adjusted Wald interval; Bonett and Price 2012, equation 2)."""
    before, after = (lost + 1) / (count + 2), (won + 1) / (count + 2)
    change = after - before
    half = Z * math.sqrt((before + after - change * change) / (count + 2))
    return max(-1.0, change - half), min(1.0, change + half)
