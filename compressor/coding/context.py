"""Context mixing: signed levels to bits and back by adaptive models, in NumPy.

A level is coded as flags: zero or not, its sign, its magnitude. Several contexts predict each
flag from the weights already coded (the row, the column, the kernel, the channel); a mixer adds up
their log-odds with weights that it learns (logistic mixing: Mahoney 2005, "Adaptive weighing of
context models for lossless data compression"); an arithmetic coder writes the flag. Everything is
integers, so every machine gives the same bits.

The matrix is coded diagonal by diagonal, up to 256 rows at a time, and models learn after each
stage of a diagonal: a diagonal is a vector here, a loop in C. `docs/format.md` has the whole model;
names and numbers here are its own. `core/context.c` is the same in C.
"""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding import context_core, native
from compressor.coding.arithmetic import BitDecoder, BitEncoder
from compressor.coding.mixing import Magnitudes, Mixer, log_table
from compressor.errors import ArtifactError

Levels = npt.NDArray[np.int32]
_Ints = npt.NDArray[np.int64]

LANES = 256
CHANNELS, ROWS, COLUMNS = 1 << 12, 1 << 10, 1 << 12
MAX_LEVEL = 1 << 16
MAX_RATE = 64
MAX_LEVELS, MAX_DIAGONALS = 1 << 24, 1 << 17
_NODES = 68


@dataclass(frozen=True)
class Grid:
    """The shape that the model sees: a matrix whose columns are channels of kernel positions.

    Attributes:
        rows, columns: of the matrix.
        height, width: of the kernel, or of whatever plane the columns form; their product divides
            ``columns``.
        positive, negative: largest magnitude that a level of either sign may have; not both 0.
        rate: learning rate of the mixer, 1 to 64.
    """

    rows: int
    columns: int
    height: int
    width: int
    positive: int
    negative: int
    rate: int

    @property
    def diagonals(self) -> int:
        """Number of diagonals: what coding takes in NumPy is in proportion to it."""
        full, rest = divmod(self.rows, LANES)
        found = full * (LANES + self.columns - 1)
        return found + (rest + self.columns - 1 if rest else 0)

    @property
    def codable(self) -> bool:
        """Whether the matrix is within what the format allows, so that work is bounded."""
        return self.rows * self.columns <= MAX_LEVELS and self.diagonals <= MAX_DIAGONALS


class _Model:
    """Codes one matrix; ``coder`` reads or writes flags."""

    def __init__(self, grid: Grid, coder: BitEncoder | BitDecoder) -> None:
        self._grid, self._coder = grid, coder
        widths = [128, 43 * 32, COLUMNS, ROWS, 81, 512]
        self._zero = Mixer(widths, 4, 1, grid.rate)
        self._sign = Mixer([81, ROWS, COLUMNS, 81, 27 * 64], 1, 1, grid.rate)
        self._sizes = Magnitudes(Mixer(widths, _NODES, _NODES, grid.rate), coder)
        self._channel_sum, self._channel_count = np.zeros((2, CHANNELS), dtype=np.int64)
        self._place_sum, self._place_count = np.zeros((2, CHANNELS), dtype=np.int64)
        self._sum = self._count = 0
        plane, wide, columns = grid.height * grid.width, grid.width, grid.columns
        c = np.arange(columns)
        x, y = c % wide, c % plane // wide
        self._channel, self._position = c // plane % CHANNELS, c % plane
        # left, left2, up, up2, channel, channel2, west, west2, north, north2, northwest, northeast
        steps = [1, 2, columns, 2 * columns, plane, 2 * plane]
        steps += [1, 2, wide, 2 * wide, wide + 1, wide - 1]
        self._steps = np.array(steps)[:, None]
        inside: list[Any] = [c > 0, c > 1, c >= 0, c >= 0, c >= plane, c >= 2 * plane]
        inside += [x > 0, x > 1, y > 0, y > 1, (x > 0) & (y > 0), (x + 1 < wide) & (y > 0)]
        self._inside = np.array(inside)
        self._top = np.array([grid.positive.bit_length(), grid.negative.bit_length()]) - 1

    def run(self, levels: Levels) -> None:
        """Code ``levels`` (rows, columns); a decoder fills them."""
        columns = self._grid.columns
        # Rows above the first and neighbours left of it are never used, but must be there.
        pad = 2 * max(columns, int(self._steps.max()))
        flat = np.zeros(pad + levels.size, dtype=np.int32)
        flat[pad:] = levels.reshape(-1)
        for first in range(0, len(levels), LANES):
            band = min(LANES, len(levels) - first)
            self._row_sum = np.zeros(band, dtype=np.int64)
            for diagonal in range(band + columns - 1):
                r = np.arange(max(0, diagonal - columns + 1), min(band, diagonal + 1))
                self._diagonal(flat, pad, first, r, diagonal - r)
        levels.reshape(-1)[:] = flat[pad:]

    def _diagonal(
        self, flat: npt.NDArray[np.int32], pad: int, first: int, r: _Ints, c: _Ints
    ) -> None:
        row = first + r
        at = pad + row * self._grid.columns + c
        inside = self._inside[:, c]
        inside[2] = row > 0
        inside[3] = row > 1
        near = flat[at - self._steps].astype(np.int64) * inside
        value = flat[at].astype(np.int64)
        shared, local = self._survey(np.abs(near), r, c)
        hashed = np.array([c % COLUMNS, row % ROWS])
        pattern = (near[[6, 8, 10, 11, 7, 9, 2, 3, 4]] != 0).T @ (1 << np.arange(9))
        contexts = np.vstack([shared[:2], hashed, shared[2], pattern])
        kind = (local > 0).astype(np.int64) + (local > 6) + (local > 20)
        none = np.zeros(len(r), dtype=np.int64)
        used = self._flags(self._zero, kind, none, contexts, value != 0)
        signs = np.where(used, 1, 0)
        kept = np.flatnonzero(used)
        if len(kept):
            negative = self._signs(near[:, kept], hashed[:, kept], c[kept], value[kept] < 0)
            contexts = np.vstack([shared[:2], hashed, shared[2:]])[:, kept]
            most = self._top[negative.astype(np.int64)]
            sizes = self._sizes.code(contexts, most, np.abs(value[kept]))
            self._check(sizes, negative)
            signs[kept] = np.where(negative, -sizes, sizes)
        flat[at] = signs
        self._count_levels(np.abs(signs), r, c)

    def _survey(self, near: _Ints, r: _Ints, c: _Ints) -> tuple[_Ints, _Ints]:
        """Return contexts (4, lanes) made of magnitudes ``near``, and how large these are."""
        channel, place = self._channel[c], self._position[c] % CHANNELS
        mean = 256 * self._sum // (self._count + 1)
        scale = _log_mean(256 * self._row_sum[r] + mean, c)
        scale += _log_mean(256 * self._channel_sum[channel] + mean, self._channel_count[channel])
        scale += _log_mean(256 * self._place_sum[place] + mean, self._place_count[place])
        scale -= 2 * log_table()[min(1 + mean, 65535)]
        scale = np.clip(scale * 6 >> 8, 0, 127)
        around = np.array([2, 1, 3, 1, 2, 1, 0, 1, 2, 1, 1, 1]) @ near
        local = 12 + ((log_table()[np.clip(around, 12, 65535)] - log_table()[12]) * 6 >> 8)
        local = np.where(around < 12, around, np.minimum(local, 63))
        capped = np.array([1, 3, 9, 27]) @ np.minimum(near[[0, 2, 4, 8]], 2)
        exact = np.array([1, 8, 64]) @ np.minimum(near[[0, 2, 8]], 7)
        return np.array([scale, scale // 3 * 32 + local // 2, capped, exact]), local

    def _signs(self, near: _Ints, hashed: _Ints, c: _Ints, negative: Any) -> Any:
        if not (self._grid.positive and self._grid.negative):
            return np.full(len(c), not self._grid.positive)
        sign = np.where(near > 0, 2, np.where(near < 0, 1, 0))
        powers = np.array([1, 3, 9, 27])
        across = powers[:3] @ sign[[4, 5, 8]] + 27 * (self._position[c] % 64)
        plane, line = powers @ sign[[6, 8, 10, 11]], powers @ sign[[0, 1, 2, 3]]
        contexts = np.array([plane, hashed[1], hashed[0], line, across])
        none = np.zeros(len(c), dtype=np.int64)
        found: Any = self._flags(self._sign, none, none, contexts, negative)
        return found

    def _check(self, sizes: _Ints, negative: Any) -> None:
        if np.any(sizes > np.where(negative, self._grid.negative, self._grid.positive)):
            raise ArtifactError(context_core.REFUSALS[native.RANGE])

    def _flags(self, mixer: Mixer, sets: _Ints, nodes: _Ints, contexts: _Ints, bits: Any) -> Any:
        came = self._coder.code(mixer.predict(sets, nodes, contexts), bits.astype(np.int64))
        mixer.learn(came)
        return came != 0

    def _count_levels(self, sizes: _Ints, r: _Ints, c: _Ints) -> None:
        self._row_sum[r] += sizes
        channel, place = self._channel[c], self._position[c] % CHANNELS
        np.add.at(self._channel_sum, channel, sizes)
        np.add.at(self._channel_count, channel, 1)
        np.add.at(self._place_sum, place, sizes)
        np.add.at(self._place_count, place, 1)
        self._sum += int(sizes.sum())
        self._count += len(sizes)


def _log_mean(total: _Ints, count: _Ints) -> _Ints:
    found: _Ints = log_table()[np.minimum(1 + total // (count + 1), 65535)]
    return found


def encode(levels: Levels, grid: Grid) -> bytes:
    """Return the stream of ``levels`` (rows, columns), each within the grid's range."""
    core = native.library()
    if core is not None:
        return context_core.encode(core, levels, astuple(grid))
    coder = BitEncoder()
    _Model(grid, coder).run(levels.copy())
    return coder.finish()


def decode(stream: memoryview, grid: Grid) -> Levels:
    """Return the levels (rows, columns), int32, of a stream that ends exactly after them."""
    core = native.library()
    if core is not None:
        return context_core.decode(core, stream, astuple(grid))
    coder = BitDecoder(stream)
    levels = np.zeros((grid.rows, grid.columns), dtype=np.int32)
    _Model(grid, coder).run(levels)
    coder.finish()
    return levels
