"""Shared tensors to the payloads of the rANS modes; where neither is smaller, none is made."""

from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.classes import Classes, one_class, pack_classes, three_axes
from compressor.artifact.grouping import count_tables, find_classes
from compressor.artifact.heads import pack_head
from compressor.artifact.segments import pack_segments
from compressor.artifact.types import Mode
from compressor.coding import gaps, rans
from compressor.coding.buffer import varint
from compressor.coding.gaps import MAX_WIDTH, Runs, Symbols
from compressor.coding.modelling import MAX_USED, ONE_BIT, Counts, Model, choose_model, entropy

_WIDTHS_TRIED = 2


def pack_rans(
    flat: Symbols,
    shape: tuple[int, ...],
    codebook: npt.NDArray[np.float32],
) -> list[tuple[Mode, bytes]]:
    """Return the payloads of the rANS modes for indices ``flat`` (n,), n >= 1.

    There are none where so many indices occur that a table of 2^14 would be too coarse.
    """
    size = len(codebook)
    cube = flat.reshape(three_axes(shape))
    counts = count_tables(cube, one_class(shape), size + 1)[0]
    if np.count_nonzero(counts) > MAX_USED:
        return []
    dense = pack_head(codebook, 0) + _pack_dense(flat, shape, codebook, counts)
    payloads = [(Mode.DENSE_RANS, dense)]
    if counts[0] < len(flat):
        width, body = _pack_gaps(flat, counts)
        payloads.append((Mode.GAP_RANS, pack_head(codebook, width) + body))
    return payloads


def _pack_gaps(flat: Symbols, index_counts: Counts) -> tuple[int, bytes]:
    """Return the gap width, and counts, tables and stream, of ``flat`` (n,), not all zero."""
    runs = gaps.count_runs(flat)
    widths = range(min(MAX_WIDTH, runs.longest.bit_length()) + 1)
    likely = sorted(widths, key=lambda width: _gap_bits(runs, index_counts, width))
    plans = [(width, *_gap_models(runs, index_counts, width)) for width in likely[:_WIDTHS_TRIED]]
    width, *models = min(plans, key=lambda plan: plan[1].size + plan[2].size)
    kept, fillers = int(runs.counts.sum()), runs.fillers(width)
    bits = sum(model.bits for model in models)
    bodies, counts = [], []
    for start, stop in gaps.segments(len(flat)):
        symbols, own = _interleaved(flat[start:stop], width)
        entries = len(symbols) // 2
        contexts = np.tile(np.arange(2, dtype=np.uint8), entries)
        lanes = rans.choose_lanes(len(symbols), bits * entries // (kept + fillers))
        stream = rans.encode(symbols, contexts, [model.frequencies for model in models], lanes)
        bodies.append(stream if own else b"")
        counts.append((own, entries - own))
    tables = b"".join(model.table for model in models)
    return width, varint(kept) + varint(fillers) + tables + pack_segments(bodies, counts)


def _gap_counts(runs: Runs, index_counts: Counts, width: int) -> tuple[Counts, Counts]:
    values = index_counts.copy()
    values[0] = runs.fillers(width)
    return runs.gap_counts(width), values


def _gap_bits(runs: Runs, index_counts: Counts, width: int) -> int:
    """Return about how many bits entries take; 3 bits for each of 4 levels to an octave of gaps."""
    both = _gap_counts(runs, index_counts, width)
    return sum(map(entropy, both)) + 12 * width * ONE_BIT


def _gap_models(runs: Runs, index_counts: Counts, width: int) -> tuple[Model, Model]:
    both = _gap_counts(runs, index_counts, width)
    return choose_model(both[0]), choose_model(both[1])


def _interleaved(
    flat: Symbols, width: int
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """Return gap, value, gap, value, ... of all entries, and the number of non-zeros."""
    kind = np.promote_types(np.uint16, flat.dtype)
    blocks, kept = [np.empty(0, dtype=kind)], 0
    for positions, previous in gaps.nonzero_blocks(flat):
        found = gaps.entries(flat, positions, previous, width)
        block = np.empty(2 * len(found[0]), dtype=kind)
        block[0::2], block[1::2] = found
        blocks.append(block)
        kept += len(positions)
    return np.concatenate(blocks), kept


def _pack_dense(
    flat: Symbols, shape: tuple[int, ...], codebook: npt.NDArray[np.float32], counts: Counts
) -> bytes:
    """Return classes, tables and stream of ``flat`` (n,); with classes only where they pay."""
    single = one_class(shape)
    plans: list[tuple[Classes, list[Model]]] = [(single, [choose_model(counts)])]
    found = find_classes(flat, shape, codebook)
    if found.tables > 1:
        cube = flat.reshape(three_axes(shape))
        models = [choose_model(row) for row in count_tables(cube, found, len(codebook) + 1)]
        plans.append((found, models))
    heads = [pack_classes(classes) for classes, _ in plans]
    sizes = [
        8 * len(head) + sum(model.size for model in models)
        for head, (_, models) in zip(heads, plans, strict=True)
    ]
    best = sizes.index(min(sizes))
    classes, models = plans[best]
    bits = sum(model.bits for model in models)
    bodies = []
    for start, stop in gaps.segments(len(flat)):
        contexts = classes.contexts(start, stop) if classes.tables > 1 else None
        lanes = rans.choose_lanes(stop - start, bits * (stop - start) // len(flat))
        frequencies = [model.frequencies for model in models]
        bodies.append(rans.encode(flat[start:stop], contexts, frequencies, lanes))
    tables = b"".join(model.table for model in models)
    return heads[best] + tables + pack_segments(bodies, None)
