"""Scale classes of a tensor's rows, columns and kernel positions: side information of DENSE_RANS.

A tensor is seen with three axes: output channels, input channels, and all further dimensions taken
together. Each index on an axis has a class, 0 to 7, and the *sum* of a weight's three classes is
its context, the number of its frequency table. Scales of channels multiply, so their logarithms,
which classes stand for, add.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding.buffer import ByteReader, varint
from compressor.coding.rans import Contexts
from compressor.coding.symbols import SymbolReader, SymbolWriter
from compressor.coding.tables import choose_code, read_table
from compressor.errors import ArtifactError

MAX_CLASSES = 8
"""Most classes of an axis."""

Axis = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Classes:
    """The class of every index of the three axes: (d0,), (d1,), (d2,), each starting at 0."""

    axes: tuple[Axis, Axis, Axis]

    @property
    def numbers(self) -> tuple[int, ...]:
        """How many classes each axis has."""
        return tuple(int(axis.max()) + 1 for axis in self.axes)

    @property
    def tables(self) -> int:
        """Number of frequency tables: one for each sum that classes can have."""
        return sum(self.numbers) - 2

    def contexts(self, start: int, stop: int) -> Contexts:
        """Return the contexts of weights ``start`` to ``stop`` - 1, of the flattened tensor."""
        rows, plane = self.axes[0], self._plane
        first, last = start // len(plane), -(-stop // len(plane))
        if last - first > 2:  # a row is shorter than the range: no more than twice as much is made
            whole = (rows[first:last, None] + plane).reshape(-1)
            return whole[start - first * len(plane) : stop - first * len(plane)]
        parts = [
            plane[max(start - row * len(plane), 0) : stop - row * len(plane)] + rows[row]
            for row in range(first, last)
        ]
        return np.concatenate(parts)

    def of_matrix(self) -> tuple[Axis, Axis]:
        """Return the classes of rows, and their sums over the other two axes, (d1 d2,)."""
        return self.axes[0], self._plane

    @cached_property
    def _plane(self) -> Contexts:
        """Sums of the classes of columns and kernel positions, (d1 d2,)."""
        return (self.axes[1][:, None] + self.axes[2]).reshape(-1)


def three_axes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the lengths of output channels, input channels, and the rest together."""
    first, second, *rest = (*shape, 1, 1)
    return first, second, math.prod(rest)


def one_class(shape: tuple[int, ...]) -> Classes:
    """Return classes that are all 0: one table for all weights."""
    first, second, third = (np.zeros(size, dtype=np.uint8) for size in three_axes(shape))
    return Classes((first, second, third))


def pack_classes(classes: Classes) -> bytes:
    """Write the numbers of classes, and the classes of axes with several, in a Huffman code."""
    numbers = classes.numbers
    head = varint(sum((number - 1) << 3 * place for place, number in enumerate(numbers)))
    coded = [axis for axis, number in zip(classes.axes, numbers, strict=True) if number > 1]
    if not coded:
        return head
    sequence = np.concatenate(coded)
    code, table = choose_code(np.bincount(sequence), huffman=True)
    writer = SymbolWriter(code)
    writer.write(sequence)
    stream = writer.finish()
    return head + table + varint(len(stream)) + stream


def read_classes(reader: ByteReader, shape: tuple[int, ...]) -> Classes:
    """Read the classes of a tensor of ``shape``, which has elements."""
    head = reader.varint()
    if head >> 9:
        raise ArtifactError(f"the numbers of classes are {head:#x}; {MAX_CLASSES} are the most")
    numbers = [1 + (head >> 3 * place & 7) for place in range(3)]
    sizes = three_axes(shape)
    if any(number > size for number, size in zip(numbers, sizes, strict=True)):
        raise ArtifactError(f"{numbers} classes cannot be in axes of {sizes}")
    total = sum(size for number, size in zip(numbers, sizes, strict=True) if number > 1)
    sequence: npt.NDArray[Any] = np.empty(0, dtype=np.uint32)
    if total:
        code = read_table(reader, max(numbers))
        source = SymbolReader(code, reader.take(reader.varint()))
        sequence = source.read(total)
        source.finish()
    axes = []
    for number, size in zip(numbers, sizes, strict=True):
        axis = np.zeros(size, dtype=np.uint8)
        if number > 1:
            axis[:], sequence = sequence[:size], sequence[size:]
        if int(axis.max()) + 1 != number:
            raise ArtifactError(f"an axis has {axis.max() + 1} classes, {number} are declared")
        axes.append(axis)
    return Classes((axes[0], axes[1], axes[2]))
