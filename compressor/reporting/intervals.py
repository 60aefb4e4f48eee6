"""95 % intervals of what a run measures: an accuracy, a change of accuracy, a ratio of times."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

Z = 1.959964
"""The 97.5 % quantile of the normal distribution."""
RESAMPLES = 2000


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


def medians(
    times: Mapping[str, Sequence[float]], base: str, together: int
) -> dict[str, dict[str, Interval]]:
    """Of the median of each of ``times``, and of how many times it goes into that of ``base``.

    ``times[name][r]`` was taken in round r, in which all took a turn; ``together`` rounds after
    each other form a set, which was measured with the same copies of the models in memory. Sets
    are drawn again and then rounds within each, with all that was measured in them (a bootstrap
    in two steps, from a fixed seed): what slows all models at once cancels in the ratio, and where
    a copy happened to lie in memory counts as chance.
    """
    sets = len(times[base]) // together
    generator = np.random.default_rng(0)
    chosen = generator.integers(0, sets, (RESAMPLES, sets, 1))
    within = generator.integers(0, together, (RESAMPLES, sets, together))
    rounds = (chosen * together + within).reshape(RESAMPLES, -1)
    found = {name: np.median(np.asarray(own)[rounds], axis=1) for name, own in times.items()}
    return {
        name: {"median": _middle(own), "faster": _middle(found[base] / own)}
        for name, own in found.items()
    }


def _middle(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
