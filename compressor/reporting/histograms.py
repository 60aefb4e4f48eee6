"""Histograms of a network's weights and scales, small enough to stand in a report."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.layers import compressible_layers
from compressor.reporting.scales import scales

Json = dict[str, Any]
BINS = 48
MOST_BINS = 4 * BINS
MOST_CENTROIDS = 64
"""Codebooks with more entries are not listed: their bins show them."""
_DIGITS = 5
_PIECE = 1 << 22
"""Values that are counted at a time: one matrix of VGG-16 has a hundred million."""


def counted(values: NDArray[Any], width: float | None = None) -> Json:
    """How many of ``values`` (any shape, finite) lie in each bin, those that are 0 apart.

    Bin i holds ``(first + i) * width`` up to ``(first + i + 1) * width``, so that histograms of one
    ``width`` lie on each other; without one, the largest value is 24 bins from 0. Bins at the ends
    also hold what lies beyond 96 bins from 0.
    """
    flat = np.asarray(values).ravel()
    pieces = [flat[at : at + _PIECE] for at in range(0, len(flat), _PIECE)]
    if width is None:
        largest = max((float(np.abs(piece).max()) for piece in pieces), default=0.0)
        width = round_up(2 * largest / BINS)
    width = width or 1.0
    counts, zeros = np.zeros(MOST_BINS, int), 0
    for piece in pieces:
        kept = piece[piece != 0].astype(np.float64)
        zeros += len(piece) - len(kept)
        places = np.clip(np.floor(kept / width), -MOST_BINS // 2, MOST_BINS // 2 - 1).astype(int)
        counts += np.bincount(places + MOST_BINS // 2, minlength=MOST_BINS)
    used = np.flatnonzero(counts)
    # From bin 0 on, or from the first one below.
    first = min(0, int(used[0]) - MOST_BINS // 2) if len(used) else 0
    last = max(int(used[-1]) - MOST_BINS // 2, first) if len(used) else 0
    held = counts[first + MOST_BINS // 2 : last + MOST_BINS // 2 + 1]
    return {"width": width, "first": first, "counts": held.tolist(), "zeros": zeros}


def edges(row: Json) -> list[float]:
    """Where the bins of a histogram from :func:`counted` begin, and where the last one ends."""
    return [(row["first"] + n) * row["width"] for n in range(len(row["counts"]) + 1)]


def weights_of(module: nn.Module) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every layer and its weight, as the network computes with it, one at a time."""
    for name, layer in compressible_layers(module).items():
        yield name, layer.weight.float().cpu().numpy()


def distributions(module: nn.Module, widths: Json | None = None) -> Json:
    """Histograms of every layer's weights, and one of all batch norms' scales.

    ``widths`` are the distributions of the network before, whose bins are taken over. Weights that
    have at most 64 values other than 0 come with these, as ``centroids``.
    """
    before = widths or {"weights": {}, "scales": None}
    found: Json = {}
    for name, weight in weights_of(module):
        row = counted(weight, before["weights"].get(name, {}).get("width"))
        if widths is not None:
            values = np.unique(weight[weight != 0])
            if len(values) <= MOST_CENTROIDS:
                row["centroids"] = [_short(value) for value in values]
        found[name] = row
    norms = scales(module)
    pooled = np.concatenate([*norms.values(), np.zeros(0, np.float32)])
    width = (before["scales"] or {}).get("width")
    return {"weights": found, "scales": counted(pooled, width) if len(pooled) else None}


def round_up(value: float) -> float:
    """The next figure of three digits, so that a report does not spell out seventeen."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    size = 10.0 ** (math.floor(math.log10(value)) - 2)
    return _short(math.ceil(value / size - 1e-9) * size)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
