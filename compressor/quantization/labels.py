"""From values and a codebook to the index of each value's nearest entry."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.quantization.runs import CHUNK, Bounds, Floats, cuts

Labels = NDArray[np.unsignedinteger[Any]]

GRID = 1 << 16  # cells of the table that labels values


def nearest_labels(values: Floats, codebook: Floats, low: np.float32, high: np.float32) -> Labels:
    """Index of the nearest codebook entry of each value; most values lie from ``low`` to ``high``.

    A table over an even grid answers at once for the cells that no cut falls into. That is exact:
    a value's cell, rounding and all, never decreases with the value, so a value in a higher cell
    than a cut's lies above it. Values in a cut's own cell are searched for one by one.
    """
    m, limits = len(codebook), cuts(codebook)
    width = (float(high) - float(low)) / (GRID - 2)
    scale = np.float32(1 / max(width, 1e-37))  # finite, whatever the width

    def cell(v: Floats) -> Bounds:
        with np.errstate(over="ignore"):  # far outside the grid: clipped to its ends
            cells: Floats = np.clip((v - low) * scale + np.float32(1), 0, GRID - 1)
        return cells.astype(np.intp)

    table = np.searchsorted(cell(limits), np.arange(GRID)).astype(np.min_scalar_type(m))
    table[cell(limits)] = m  # not a label: search
    labels = np.empty(len(values), dtype=np.min_scalar_type(m - 1))
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        found = table.take(cell(chunk))
        unsure = np.flatnonzero(found == m)
        found[unsure] = np.searchsorted(limits, chunk[unsure])
        labels[start : start + CHUNK] = found
    return labels


def labelled_inertia(
    values: Floats, codebook: Floats, labels: Labels
) -> tuple[float, NDArray[np.int64]]:
    """Sum of squared distances between values and their entries, and how many each entry has."""
    entries = codebook.astype(np.float64)
    total, counts = 0.0, np.zeros(len(codebook), np.int64)
    for start in range(0, len(values), CHUNK):
        chunk = labels[start : start + CHUNK]
        total += float(np.sum((values[start : start + CHUNK] - entries.take(chunk)) ** 2))
        counts += np.bincount(chunk, minlength=len(codebook))
    return total, counts
