"""Payloads of shared tensors taken apart, and put together again from their indices.

A payload is its *front* (codebook, counts, tables, classes, planes) and its streams. The format
leaves a writer free in the front alone: from it and the indices the streams follow to the bit, with
one byte more for the lanes of each rANS stream. So a patch holds the front, and not the streams.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from compressor.artifact.classes import Classes, read_classes
from compressor.artifact.heads import Head, read_head
from compressor.artifact.layout import TensorRecord
from compressor.artifact.levels import LevelMap, matrix_of
from compressor.artifact.packing import pack_entries
from compressor.artifact.planning import Plan, Stream
from compressor.artifact.segments import pack_segments, read_segments
from compressor.artifact.types import GRID_FLAG, HALF_FLAG, MAX_CODEBOOK, Mode
from compressor.coding import context, gaps, rans
from compressor.coding.buffer import ByteReader, varint
from compressor.coding.context import MAX_RATE, Grid
from compressor.coding.frequencies import Frequencies, read_frequencies
from compressor.coding.gaps import Symbols
from compressor.coding.huffman import ABSENT, Lengths
from compressor.coding.rans import MAX_LANES, Contexts, fewest_lanes
from compressor.coding.symbols import SymbolWriter
from compressor.coding.tables import read_table
from compressor.errors import ArtifactError
from compressor.updates.words import Words

Streams = Callable[[Symbols, bytes], bytes]
"""Indices (n,) and the lanes of each segment's stream -> what follows the front."""


@dataclass(frozen=True, eq=False)
class Front:
    """What a payload says before its streams.

    Attributes:
        rest: the bytes between the head and the streams.
        lanes: how many bytes of lanes there are: one for each rANS stream.
        streams: what writes the streams.
    """

    rest: memoryview
    lanes: int
    streams: Streams


class BookForm(NamedTuple):
    """How a payload holds its codebook: its size and its form, as they stand before it."""

    size: int
    grid: bool
    item: int
    prefix: bytes


def read_form(reader: ByteReader) -> BookForm:
    """Read what stands before the codebook of a shared payload; ``item`` is a float's bytes."""
    size, byte = reader.varint(), reader.byte()
    if size > MAX_CODEBOOK:
        raise ArtifactError(f"the codebook has {size} entries; {MAX_CODEBOOK} are the most")
    prefix = varint(size) + bytes([byte])
    return BookForm(size, bool(byte & GRID_FLAG), 2 if byte & HALF_FLAG else 4, prefix)


def read_book(reader: ByteReader, form: BookForm) -> bytes:
    """Read the codebook of that form, as it stands."""
    if form.grid:
        return varint(reader.varint()) + bytes(reader.take(4))
    return bytes(reader.take(form.size * form.item))


def book_words(form: BookForm, base: memoryview) -> Words | None:
    """The base's codebook, where the new one can be coded against it: floats in like form."""
    theirs = read_form(ByteReader(base, "the base's payload"))
    if form.grid or theirs.grid or (form.size, form.item) != (theirs.size, theirs.item):
        return None
    start = len(theirs.prefix)
    return Words(base[start : start + form.size * form.item], form.item, True)


def read_front(record: TensorRecord, reader: ByteReader, head: Head) -> Front:
    """Read a front from behind its head on."""
    start, size = reader.position, len(head.codebook)
    whole = reader.peek(reader.remaining)
    lanes = 0
    if record.mode is Mode.CONTEXT:
        streams = _context(record, reader, head)
    elif record.mode is Mode.DENSE_RANS:
        classes = read_classes(reader, record.shape)
        tables = [read_frequencies(reader, size + 1) for _ in range(classes.tables)]
        streams, lanes = _dense(classes, tables), len(gaps.segments(record.elements))
    else:
        kept, fillers = reader.varint(), reader.varint()
        counts = kept, fillers
        streams = _nothing(counts)
        if kept and record.mode is Mode.GAP_RANS:
            tables = [read_frequencies(reader, 1 << head.width), read_frequencies(reader, size + 1)]
            streams = _gaps_in_rans(head.width, counts, tables)
            lanes = len(gaps.segments(record.elements))
        elif kept:
            codes = read_table(reader, 1 << head.width), read_table(reader, size + 1)
            streams = _gaps(head.width, counts, codes)
    return Front(whole[: reader.position - start], lanes, streams)


def take_apart(record: TensorRecord, payload: memoryview) -> tuple[memoryview, Front, bytes]:
    """Return the head of a sound payload, the front behind it, and the lanes of its streams."""
    reader = ByteReader(payload, "the payload")
    head = read_head(reader, True)
    start = reader.position
    front = read_front(record, reader, head)
    lanes = b""
    if front.lanes:
        counts = None if record.mode is Mode.DENSE_RANS else _counts(front.rest)
        segments = read_segments(reader, record.shape, counts)
        lanes = bytes(each.body[0] if len(each.body) else 0 for each in segments)
    return payload[:start], front, lanes


def _counts(rest: memoryview) -> tuple[int, int]:
    reader = ByteReader(rest, "the payload")
    return reader.varint(), reader.varint()


def _context(record: TensorRecord, reader: ByteReader, head: Head) -> Streams:
    rows, columns = matrix_of(record.shape)
    height, width, rate = reader.varint(), reader.varint(), reader.byte()
    found = LevelMap(head.codebook)
    grid = Grid(rows, columns, height, width, found.positive, found.negative, rate)
    if not (height and width) or columns % (height * width) or not 1 <= rate <= MAX_RATE:
        raise ArtifactError(f"{columns} columns in planes of {height} x {width}, rate {rate}")
    if not (record.elements and len(head.codebook) and grid.codable):
        raise ArtifactError(f"a matrix of {rows} x {columns} cannot be coded by context mixing")
    return lambda flat, _: context.encode(found.levels[flat].reshape(rows, columns), grid)


def _dense(classes: Classes, tables: list[Frequencies]) -> Streams:
    def streams(flat: Symbols, lanes: bytes) -> bytes:
        bodies = []
        for (start, stop), each in zip(gaps.segments(len(flat)), lanes, strict=True):
            contexts = classes.contexts(start, stop)
            bodies.append(_rans(flat[start:stop], contexts, tables, each))
        return pack_segments(bodies, None)

    return streams


def _gaps_in_rans(width: int, counts: tuple[int, int], tables: list[Frequencies]) -> Streams:
    def streams(flat: Symbols, lanes: bytes) -> bytes:
        _check_counts(flat, width, counts)
        bodies, found = [], []
        for (start, stop), each in zip(gaps.segments(len(flat)), lanes, strict=True):
            skips, values, kept = gaps.list_entries(flat[start:stop], width, sum(counts))
            entries = np.stack([skips, values], axis=1).reshape(-1)
            contexts = np.tile(np.arange(2, dtype=np.uint8), len(skips))
            bodies.append(_rans(entries, contexts, tables, each) if kept else b"")
            found.append((kept, len(skips) - kept))
        return pack_segments(bodies, found)

    return streams


def _gaps(width: int, counts: tuple[int, int], codes: tuple[Lengths, Lengths]) -> Streams:
    def streams(flat: Symbols, _: bytes) -> bytes:
        _check_counts(flat, width, counts)
        _check_code(codes[1], flat if counts[1] else flat[flat != 0])
        runs = gaps.count_runs(flat)
        _check_code(codes[0], np.flatnonzero(runs.gap_counts(width)).astype(np.uint32))
        plan = Plan(width, *counts, *(Stream(code, b"", 0) for code in codes))
        return pack_entries(flat, plan, lambda: SymbolWriter(codes[1]))[len(plan.counts) :]

    return streams


def _nothing(counts: tuple[int, int]) -> Streams:
    def streams(flat: Symbols, _: bytes) -> bytes:
        _check_counts(flat, 0, counts)
        return b""

    return streams


def _check_counts(flat: Symbols, width: int, counts: tuple[int, int]) -> None:
    runs = gaps.count_runs(flat)
    found = int(runs.counts.sum()), runs.fillers(width)
    if found != counts:
        raise ArtifactError(f"a tensor has {found} weights and fillers; {counts} are declared")


def _check_code(code: Lengths, symbols: Symbols) -> None:
    if len(symbols) and (int(symbols.max()) >= len(code) or np.any(code[symbols] == ABSENT)):
        raise ArtifactError("a code table lacks a symbol that it is to write")


def _rans(symbols: Symbols, contexts: Contexts, tables: list[Frequencies], lanes: int) -> bytes:
    if not fewest_lanes(len(symbols)) <= lanes <= MAX_LANES:
        raise ArtifactError(f"{len(symbols)} symbols cannot be in 2^{lanes} lanes")
    for number, table in enumerate(tables):
        used = symbols[contexts == number]
        if len(used) and (int(used.max()) >= len(table) or not table[used].all()):
            raise ArtifactError("a frequency table lacks a symbol that it is to write")
    return rans.encode(symbols, contexts if len(tables) > 1 else None, tables, lanes)
