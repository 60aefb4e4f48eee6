"""Payloads of the rANS modes back to symbols, or `ArtifactError`."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from compressor.artifact.classes import Classes, read_classes
from compressor.artifact.heads import read_head
from compressor.artifact.layout import TensorRecord
from compressor.artifact.segments import Segment, fill_segments, read_segments
from compressor.artifact.types import Parts
from compressor.coding.buffer import ByteReader
from compressor.coding.frequencies import Frequencies, read_frequencies
from compressor.coding.gaps import Symbols
from compressor.coding.rans import MAX_LANES, Decoder
from compressor.coding.streams_core import Target, decode_dense, decode_rans_gaps
from compressor.errors import ArtifactError

_WEIGHTS = 32 << MAX_LANES
"""Weights decoded at once: whole steps of any number of lanes."""


class EntryReader(Protocol):
    """Reads the entries of a GAP mode, some at a time."""

    def read(self, count: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Return the next ``count`` gaps and values."""

    def finish(self) -> None:
        """Raise unless nothing is left."""


@dataclass(frozen=True, eq=False)
class RansEntries:
    """Entries in one rANS stream: gap, value, gap, value, ..., ``count`` of each."""

    stream: memoryview
    tables: list[Frequencies]
    count: int
    gap_bytes = 0

    @classmethod
    def of(cls, tables: list[Frequencies], segment: Segment) -> "RansEntries":
        """Return the entries of a segment."""
        return cls(segment.body, tables, segment.kept + segment.fillers)

    @property
    def value_bytes(self) -> int:
        """Bytes of the stream, gaps included."""
        return len(self.stream)

    def fill(self, counts: tuple[int, int, int], target: Target) -> bool:
        """Decode all into ``target`` by the C core; return whether it did."""
        return decode_rans_gaps(self.tables, self.stream, counts, target)

    def open(self) -> EntryReader:
        """Begin to read."""
        return _RansReader(Decoder(self.stream, self.tables, 2 * self.count))


class _RansReader:
    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def read(self, count: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Return the next ``count`` gaps and values; a multiple of 2^11, but for the last."""
        symbols = self._decoder.read(2 * count, np.tile(np.arange(2, dtype=np.uint8), count))
        return symbols[0::2], symbols[1::2]

    def finish(self) -> None:
        """Raise unless nothing is left."""
        self._decoder.finish()


class DensePayload(NamedTuple):
    """The parsed payload of a DENSE_RANS tensor."""

    shape: tuple[int, ...]
    codebook: npt.NDArray[np.float32]
    classes: Classes
    tables: list[Frequencies]
    segments: list[Segment]
    parts: Parts

    def fill(self, target: Target, threads: int) -> bool:
        """Decode into ``target`` by the C core; return whether it did."""
        classes = self.classes.of_matrix()
        return fill_segments(
            self.segments,
            target,
            threads,
            lambda each, part: decode_dense(self.tables, each.body, classes, each.start, part),
        )

    def symbols(self, dtype: np.dtype[np.unsignedinteger[Any]]) -> Symbols:
        """Return the (n,) indices."""
        out: Symbols = np.empty(math.prod(self.shape), dtype=dtype)
        for each in self.segments:
            decoder = Decoder(each.body, self.tables, each.stop - each.start)
            for start in range(each.start, each.stop, _WEIGHTS):
                stop = min(start + _WEIGHTS, each.stop)
                contexts = self.classes.contexts(start, stop) if len(self.tables) > 1 else None
                out[start:stop] = decoder.read(stop - start, contexts)
            decoder.finish()
        return out


def parse_dense(record: TensorRecord, payload: memoryview) -> DensePayload:
    """Return the parts of a DENSE_RANS payload; the stream is not decoded."""
    reader = ByteReader(payload, "the payload")
    head = read_head(reader, True)
    codebook, width = head.codebook, head.width
    if width:
        raise ArtifactError(f"a tensor without gaps has a gap width of {width}")
    if not record.elements:
        raise ArtifactError("a tensor without elements is coded")
    start = reader.position
    classes = read_classes(reader, record.shape)
    tables = [read_frequencies(reader, len(codebook) + 1) for _ in range(classes.tables)]
    side = reader.position - start
    segments = read_segments(reader, record.shape, None)
    values = sum(len(each.body) for each in segments)
    parts = Parts(values=values, tables=side, codebook=head.bytes)
    parts = parts._replace(other=len(payload) - parts.total)
    return DensePayload(record.shape, codebook, classes, tables, segments, parts)
