"""The payload of the CONTEXT mode back to indices, or `ArtifactError`."""

from typing import Any, NamedTuple

import numpy as np

from compressor.artifact.heads import Book, read_head
from compressor.artifact.layout import TensorRecord
from compressor.artifact.levels import LevelMap, matrix_of
from compressor.artifact.types import Parts
from compressor.coding import context
from compressor.coding.buffer import ByteReader
from compressor.coding.context import MAX_RATE, Grid
from compressor.coding.gaps import Symbols
from compressor.coding.streams_core import Target
from compressor.errors import ArtifactError


class ContextPayload(NamedTuple):
    """The parsed payload of a CONTEXT tensor."""

    codebook: Book
    grid: Grid
    found: LevelMap
    stream: memoryview
    parts: Parts

    def fill(self, _: Target, __: int) -> bool:
        """Leave it to `symbols`: context mixing yields levels, not indices."""
        return False

    def symbols(self, dtype: np.dtype[np.unsignedinteger[Any]]) -> Symbols:
        """Return the (n,) indices."""
        levels = context.decode(self.stream, self.grid)
        return self.found.indices(levels.reshape(-1), dtype)


def parse_context(record: TensorRecord, payload: memoryview) -> ContextPayload:
    """Return the parts of a CONTEXT payload; the stream is not decoded."""
    reader = ByteReader(payload, "the payload")
    head = read_head(reader, True)
    if head.width:
        raise ArtifactError(f"a tensor without gaps has a gap width of {head.width}")
    if not record.elements or not len(head.codebook):
        raise ArtifactError("a tensor without elements or centroids is coded")
    rows, columns = matrix_of(record.shape)
    height, width, rate = reader.varint(), reader.varint(), reader.byte()
    if not (height and width) or columns % (height * width):
        raise ArtifactError(f"{columns} columns are not planes of {height} x {width}")
    if not 1 <= rate <= MAX_RATE:
        raise ArtifactError(f"the learning rate is {rate}; it goes from 1 to {MAX_RATE}")
    stream = reader.take(reader.remaining)
    found = LevelMap(head.codebook)
    grid = Grid(rows, columns, height, width, found.positive, found.negative, rate)
    if not grid.codable:
        raise ArtifactError(f"a matrix of {rows} x {columns} is too large for context mixing")
    other = len(payload) - len(stream) - head.bytes
    parts = Parts(values=len(stream), codebook=head.bytes, other=other)
    return ContextPayload(head.codebook, grid, found, stream, parts)
