"""DENSE_RANS: classes of three axes, and the stream of all indices."""

from math import prod

from tests.golden.second import codes, rans
from tests.golden.second.frequencies import read_frequencies
from tests.golden.second.reading import Bytes, require
from tests.golden.second.segments import read_segments


def read_indices(source: Bytes, shape: list[int], k: int) -> list[int]:
    """The indices of a payload after its head."""
    require(prod(shape), "a tensor without elements")
    axes = _read_classes(source, [*[*shape, 1, 1][:2], prod(shape[2:])])
    sums = [a + b + c for a in axes[0] for b in axes[1] for c in axes[2]]
    tables = [read_frequencies(source, k + 1) for _ in range(sum(map(max, axes)) + 1)]
    found: list[int] = []
    for segment in read_segments(source, len(sums), None):
        contexts = sums[len(found) : len(found) + segment.weights]
        found += rans.read_symbols(segment.streams, tables, contexts)
    return found


def _read_classes(source: Bytes, sizes: list[int]) -> list[list[int]]:
    """The class of each index of the three axes, which have ``sizes``."""
    head = source.varint()
    require(head < 8**3, "over 8 classes")
    numbers = [head // 8**axis % 8 + 1 for axis in range(3)]
    for number, size in zip(numbers, sizes, strict=True):
        require(number <= size, "more classes than the axis is long")
    coded = [size for number, size in zip(numbers, sizes, strict=True) if number > 1]
    found: list[int] = []
    if coded:
        code = codes.read_code(source, max(numbers))
        found = codes.read_symbols(code, source.take(source.varint()), sum(coded))
    axes = []
    for number, size in zip(numbers, sizes, strict=True):
        axis = [0] * size
        if number > 1:
            axis, found = found[:size], found[size:]
        require(max(axis) == number - 1, "another number of classes than declared")
        axes.append(axis)
    return axes
