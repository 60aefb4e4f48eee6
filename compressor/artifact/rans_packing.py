"""Shared tensors to the payloads of the rANS modes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Candidate:
    """A payload that was planned: its mode, likely bytes, symbols to decode, and what writes it."""

    mode: Mode
    size: int
    symbols: int
    pack: Callable[[], bytes]


def plan_rans(
    flat: Symbols,
    shape: tuple[int, ...],
    codebook: npt.NDArray[np.float32],
    runs: Runs,
    counts: Counts,
    *,
    few_entries: bool,
) -> list[Candidate]:
    """Return candidates for indices ``flat`` (n,), n >= 1, which occur ``counts`` (k + 1,) times.

    With ``few_entries``, gaps are so wide that they have at most n / 4, if they can be.
    There are none where so many indices occur that a table of 2^14 would be too coarse.
    """
    if np.count_nonzero(counts) > MAX_USED:
        return []
    candidates = [_plan_dense(flat, shape, codebook, counts)]
    if counts[0] < len(flat):
        widths = range(min(MAX_WIDTH, runs.longest.bit_length()) + 1)
        most = len(flat) // 4 - int(runs.counts.sum())
        wide = [width for width in widths if few_entries and runs.fillers(width) <= most]
        candidates.append(_plan_gaps(flat, codebook, runs, counts, wide or widths))
    return candidates


def _plan_gaps(
    flat: Symbols,
    codebook: npt.NDArray[np.float32],
    runs: Runs,
    index_counts: Counts,
    widths: Sequence[int],
) -> Candidate:
    likely = sorted(widths, key=lambda width: _gap_bits(runs, index_counts, width))
    plans = [(width, *_gap_models(runs, index_counts, width)) for width in likely[:_WIDTHS_TRIED]]
    width, *models = min(plans, key=lambda plan: plan[1].size + plan[2].size)
    kept, fillers = int(runs.counts.sum()), runs.fillers(width)
    tables = [model.table for model in models]
    front = b"".join([pack_head(codebook, width), varint(kept), varint(fillers), *tables])
    bits, symbols = sum(model.bits for model in models), 2 * (kept + fillers)

    def pack() -> bytes:
        bodies, counts = [], []
        for start, stop in gaps.segments(len(flat)):
            *found, own = gaps.list_entries(flat[start:stop], width, kept + fillers)
            entries = np.stack(found, axis=1).reshape(-1)
            contexts = np.tile(np.arange(2, dtype=np.uint8), len(entries) // 2)
            lanes = rans.choose_lanes(len(entries), bits * len(entries) // symbols)
            stream = rans.encode(entries, contexts, [model.frequencies for model in models], lanes)
            bodies.append(stream if own else b"")
            counts.append((own, len(entries) // 2 - own))
        return front + pack_segments(bodies, counts)

    size = len(front) + _streams_size(len(flat), symbols, bits)
    return Candidate(Mode.GAP_RANS, size, symbols, pack)


def _streams_size(weights: int, symbols: int, bits: int) -> int:
    pieces = len(gaps.segments(weights))
    return pieces * rans.stream_size(
        rans.choose_lanes(symbols // pieces, bits // pieces), bits // pieces
    )


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


def _plan_dense(
    flat: Symbols, shape: tuple[int, ...], codebook: npt.NDArray[np.float32], counts: Counts
) -> Candidate:
    """Plan classes and tables for ``flat`` (n,); with classes only where they pay."""
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
    tables = [model.table for model in models]
    front = b"".join([pack_head(codebook, 0), heads[best], *tables])
    bits = sum(model.bits for model in models)

    def pack() -> bytes:
        bodies = []
        for start, stop in gaps.segments(len(flat)):
            contexts = classes.contexts(start, stop) if classes.tables > 1 else None
            lanes = rans.choose_lanes(stop - start, bits * (stop - start) // len(flat))
            frequencies = [model.frequencies for model in models]
            bodies.append(rans.encode(flat[start:stop], contexts, frequencies, lanes))
        return front + pack_segments(bodies, None)

    size = len(front) + _streams_size(len(flat), len(flat), bits)
    return Candidate(Mode.DENSE_RANS, size, len(flat), pack)
