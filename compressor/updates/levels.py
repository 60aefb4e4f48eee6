"""Indices of a shared tensor, coded against the base's indices as context.

The base's value of a weight says which level of the new codebook is expected. What is coded is the
difference from it, predicted by the base's level, the row and the column: weights of one centroid
move together.
"""

import numpy as np
import numpy.typing as npt

from compressor.artifact.heads import Book
from compressor.artifact.levels import LevelMap, matrix_of
from compressor.artifact.types import Shared, index_dtype
from compressor.coding.arithmetic import BitDecoder, BitEncoder
from compressor.coding.gaps import Symbols
from compressor.coding.residuals import Residuals
from compressor.errors import ArtifactError

_Ints = npt.NDArray[np.int64]

_LEVELS, _SIZES, _ROWS, _COLUMNS = 1 << 12, 1 << 4, 1 << 10, 1 << 12
_WIDTHS = [_LEVELS, _SIZES, _ROWS, _COLUMNS]
_SIGN = np.int64(1) << 31
ALL, KEPT = 0, 1


class Expectation:
    """What the base says of a tensor of the same shape and a new codebook.

    Attributes:
        levels: (n,) int32, the new level that is expected of each weight.
        kept: (m,) the positions of the weights that the base has not pruned.
    """

    def __init__(self, base: Shared, codebook: Book) -> None:
        self.new = LevelMap(codebook)
        old = LevelMap(base.codebook)
        flat = base.indices.reshape(-1)
        self._base = old.levels[flat]
        self._negative = old.negative
        nearest = _nearest(_by_level(old, base.codebook), _by_level(self.new, codebook))
        nearest -= self.new.negative
        nearest[old.negative] = 0
        self.levels = nearest.astype(np.int32)[self._base + old.negative]
        self.kept = np.flatnonzero(flat)
        self._columns = matrix_of(base.indices.shape)[1]

    @property
    def bits(self) -> int:
        """The most that the magnitude of a difference may have."""
        return max(1, (self.new.positive + self.new.negative).bit_length())

    def positions(self, which: int) -> _Ints:
        """Return the positions of the weights that are coded: all, or those that are kept."""
        return self.kept if which == KEPT else np.arange(len(self.levels))

    def contexts(self, at: _Ints) -> _Ints:
        """Return the contexts (4, m) of the weights at positions ``at`` (m,)."""
        base = self._base[at].astype(np.int64)
        row, column = at // self._columns, at % self._columns
        size = np.minimum(np.abs(base), _SIZES - 1)
        return np.array([(base + self._negative) % _LEVELS, size, row % _ROWS, column % _COLUMNS])


def encode_levels(base: Shared, new: Shared) -> bytes:
    """Return the stream of the new indices, of the base's shape; its first byte says of which."""
    known = Expectation(base, new.codebook)
    differences = known.new.levels[new.indices.reshape(-1)] - known.levels
    kept = differences[known.kept]
    which = KEPT if np.count_nonzero(kept) == np.count_nonzero(differences) else ALL
    at = known.positions(which)
    coder = BitEncoder()
    if len(at):
        model = Residuals(coder, _WIDTHS, known.bits)
        model.code(differences[at], lambda part: known.contexts(at[part]))
    return bytes([which]) + coder.finish()


def decode_levels(stream: memoryview, base: Shared, codebook: Book) -> Symbols:
    """Return the (n,) new indices. Raises :class:`ArtifactError` for a stream that is none."""
    if not len(stream) or stream[0] > KEPT:
        raise ArtifactError("a stream of levels does not say which weights it is of")
    known = Expectation(base, codebook)
    levels, at = known.levels.astype(np.int64), known.positions(stream[0])
    coder = BitDecoder(stream[1:])
    if len(at):
        model, none = Residuals(coder, _WIDTHS, known.bits), np.zeros(len(at), dtype=np.int8)
        levels[at] += model.code(none, lambda part: known.contexts(at[part]))
    coder.finish()
    low, high = levels.min(initial=0), levels.max(initial=0)
    if not -known.new.negative <= low <= high <= known.new.positive:
        raise ArtifactError("a stream of levels holds one out of range")
    return known.new.indices(levels.astype(np.int32), index_dtype(len(codebook)))


def _by_level(found: LevelMap, codebook: Book) -> _Ints:
    """The codebook's bits as numbers that grow with the floats, by level; 0 for level 0."""
    bits = np.ascontiguousarray(codebook, dtype="<f4").view("<u4").astype(np.int64)
    ordered = np.zeros(len(bits) + 1, dtype=np.int64)
    ordered[found.levels[1:] + found.negative] = np.where(bits & _SIGN != 0, _SIGN - 1 - bits, bits)
    return ordered


def _nearest(old: _Ints, new: _Ints) -> _Ints:
    """The place in ``new``, ascending, that is nearest to each of ``old``; half-way, the lower."""
    if len(new) < 2:
        return np.zeros(len(old), dtype=np.int64)
    above = np.searchsorted(new, old).clip(1, len(new) - 1)
    nearer = old - new[above - 1] <= new[above] - old
    found: _Ints = np.searchsorted(new, np.where(nearer, new[above - 1], new[above]))
    return found
