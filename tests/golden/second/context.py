"""CONTEXT: levels, the order of their flags, and the contexts of each flag."""

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from math import prod

from tests.golden.second.mixing import ArithmeticCode, Kind, fine_log
from tests.golden.second.reading import Bytes, require

BAND = 256


def read_indices(source: Bytes, shape: list[int], codebook: list[bytes]) -> list[int]:
    """The indices of a payload after its head."""
    require(prod(shape), "a tensor without elements")
    require(codebook, "no codebook")
    rows, columns = (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))
    h, w, z = source.varint(), source.varint(), source.u8()
    require(h and w and columns % (h * w) == 0, "planes that do not divide the columns")
    require(1 <= z <= 64, "a rate of 0 or over 64")
    bands = [min(BAND, rows - first) for first in range(0, rows, BAND)]
    require(rows * columns <= 1 << 24, "over 2^24 levels")
    require(sum(band + columns - 1 for band in bands) <= 1 << 17, "over 2^17 diagonals")
    level_of = levels_of(codebook)
    index_of = {level: index for index, level in enumerate(level_of)}
    model = _Model(source.rest(), (rows, columns), (h, w), z, max(level_of), -min(level_of))
    return [index_of[level] for level in model.levels()]


def levels_of(codebook: list[bytes]) -> list[int]:
    """The level of each index, 0 first."""
    bits = [struct.unpack("<I", entry)[0] for entry in codebook]
    found = [0] * (len(bits) + 1)
    for sign in (0, 1):
        ranked = sorted((bit, i) for i, bit in enumerate(bits) if bit >> 31 == sign)
        for rank, (_, i) in enumerate(ranked, 1):
            found[i + 1] = -rank if sign else rank
    return found


@dataclass
class _Weight:
    """A weight of the diagonal that is being read."""

    r: int
    c: int
    near: dict[str, int]
    shared: list[int]  # inputs that the zero flag and the magnitude have in common
    kept: int = 0
    negative: bool = False
    most: int = 0  # largest magnitude
    e: int = 0
    v: int = 1
    left: int | None = None  # lower bits to come; None as long as e may grow
    magnitude: int = field(default=0)


class _Model:
    def __init__(
        self,
        stream: bytes,
        size: tuple[int, int],
        plane: tuple[int, int],
        rate: int,
        positive: int,
        negative: int,
    ) -> None:
        self.rows, self.columns = size
        self.h, self.w = plane
        self.top = {False: positive, True: negative}
        self.code = ArithmeticCode(stream)
        self.zero, self.sign, self.size = (Kind(self.code, rate) for _ in range(3))
        self.q: dict[tuple[int, int], int] = {}
        # Sums of magnitudes and numbers of weights, by channel, by place, of all.
        self.channel: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.place: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.all = [0, 0]
        self.row: dict[int, int] = {}

    def levels(self) -> list[int]:
        """All levels, row by row."""
        for band in range(0, self.rows, BAND):
            self.row = defaultdict(int)
            many = min(BAND, self.rows - band)
            for diagonal in range(many + self.columns - 1):
                here = [(band + i, diagonal - i) for i in range(many)]
                self.diagonal([(r, c) for r, c in here if 0 <= c < self.columns])
        self.code.end()
        return [self.q[r, c] for r in range(self.rows) for c in range(self.columns)]

    def diagonal(self, places: list[tuple[int, int]]) -> None:
        weights = []
        for r, c in places:
            near = self.neighbours(r, c)
            shared, local = self.survey(r, c, near)
            weight = _Weight(r, c, near, shared)
            set_ = sum(local > edge for edge in (0, 6, 20))
            weight.kept = self.zero.flag(set_, 0, [*shared, _pattern(near)])
            weights.append(weight)
        self.zero.learn()
        kept = [weight for weight in weights if weight.kept]
        for weight in kept:
            weight.negative = self.is_negative(weight)
        self.sign.learn()
        self.magnitudes(kept)
        for weight in weights:
            self.count(weight)

    def neighbours(self, r: int, c: int) -> dict[str, int]:
        """Levels of those that are inside."""
        p = c % (self.h * self.w)
        x, y = p % self.w, p // self.w

        def at(row: int, column: int, inside: bool = True) -> int:
            return self.q[row, column] if inside and row >= 0 and column >= 0 else 0

        return {
            "left": at(r, c - 1),
            "left2": at(r, c - 2),
            "up": at(r - 1, c),
            "up2": at(r - 2, c),
            "channel": at(r, c - self.h * self.w),
            "channel2": at(r, c - 2 * self.h * self.w),
            "west": at(r, c - 1, x >= 1),
            "west2": at(r, c - 2, x >= 2),
            "north": at(r, c - self.w, y >= 1),
            "north2": at(r, c - 2 * self.w, y >= 2),
            "northwest": at(r, c - self.w - 1, x >= 1 and y >= 1),
            "northeast": at(r, c - self.w + 1, x + 1 < self.w and y >= 1),
        }

    def survey(self, r: int, c: int, near: dict[str, int]) -> tuple[list[int], int]:
        """The inputs that the zero flag and the magnitude share, and ``local``."""
        m = {name: abs(level) for name, level in near.items()}
        t = 256 * self.all[0] // (self.all[1] + 1)
        channel, place = self.numbers(c)
        (si, ni), (sp, np) = self.channel[channel], self.place[place]
        scale = _mean(256 * self.row[r] + t, c) + _mean(256 * si + t, ni)
        scale += _mean(256 * sp + t, np) - 2 * _mean(t, 0)
        scale = min(127, max(0, 6 * scale >> 8))
        around = 3 * m["up"] + 2 * (m["left"] + m["channel"] + m["north"])
        around += m["left2"] + m["up2"] + m["channel2"] + m["west2"] + m["north2"]
        local = around = around + m["northwest"] + m["northeast"]
        if around >= 12:
            above = fine_log(min(65535, around)) - fine_log(12)
            local = min(63, 12 + (6 * above >> 8))
        capped = [min(2, m[name]) for name in ("left", "up", "channel", "north")]
        shared = [scale, 32 * (scale // 3) + local // 2, c % 4096, r % 1024, _digits(3, capped)]
        return shared, local

    def is_negative(self, weight: _Weight) -> bool:
        if not all(self.top.values()):
            return not self.top[False]
        s = {name: 2 if q > 0 else 1 if q < 0 else 0 for name, q in weight.near.items()}
        plane = _digits(3, [s[n] for n in ("west", "north", "northwest", "northeast")])
        line = _digits(3, [s[n] for n in ("left", "left2", "up", "up2")])
        across = _digits(3, [s[n] for n in ("channel", "channel2", "north")])
        across += 27 * (weight.c % (self.h * self.w) % 64)
        contexts = [plane, weight.r % 1024, weight.c % 4096, line, across]
        return bool(self.sign.flag(0, 0, contexts))

    def magnitudes(self, kept: list[_Weight]) -> None:
        for weight in kept:
            weight.most = self.top[weight.negative]
            weight.left = None if weight.most > 1 else 0
        while any(weight.left != 0 for weight in kept):
            for weight in kept:
                if weight.left != 0:
                    self.magnitude_flag(weight)
            self.size.learn()
        for weight in kept:
            require(weight.v <= weight.most, "a magnitude over the largest")
            weight.magnitude = weight.v

    def magnitude_flag(self, weight: _Weight) -> None:
        """One flag of a magnitude: is e larger; or else the next lower bit."""
        capped = [min(7, abs(weight.near[name])) for name in ("left", "up", "north")]
        contexts = [*weight.shared, _digits(8, capped)]
        if weight.left is None:
            node = 4 * weight.e
            more = self.size.flag(node, node, contexts)
            weight.e += more
            if not more or weight.e == weight.most.bit_length() - 1:
                weight.left = weight.e
            return
        node = 4 * weight.e + weight.v
        modelled = weight.v < 4
        bit = self.size.flag(node, node, contexts) if modelled else self.code.flag(1 << 15)
        weight.v = 2 * weight.v + bit
        weight.left -= 1

    def count(self, weight: _Weight) -> None:
        a = weight.magnitude
        self.q[weight.r, weight.c] = -a if weight.negative else a
        self.row[weight.r] += a
        channel, place = self.numbers(weight.c)
        for sums in (self.channel[channel], self.place[place], self.all):
            sums[0] += a
            sums[1] += 1

    def numbers(self, c: int) -> tuple[int, int]:
        """The numbers of a column's channel and place under which sums are kept."""
        return c // (self.h * self.w) % 4096, c % (self.h * self.w) % 4096


def _mean(s: int, k: int) -> int:
    return fine_log(min(65535, 1 + s // (k + 1)))


def _digits(base: int, values: list[int]) -> int:
    return sum(base**i * value for i, value in enumerate(values))


def _pattern(near: dict[str, int]) -> int:
    names = ("west", "north", "northwest", "northeast", "west2", "north2", "up", "up2", "channel")
    return sum(2**i for i, name in enumerate(names) if near[name])
