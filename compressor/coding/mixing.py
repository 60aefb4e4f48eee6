"""Logistic mixing: the chance of a flag from the statistics of several contexts, in integers.

Each input has a slot for every value of its context: how many zeros and ones were seen there. The
slots' log-odds are added up with weights that are learnt (Mahoney 2005, "Adaptive weighing of
context models for lossless data compression"). Flags come in groups: all of a group are predicted
from what was learnt before it. `docs/format.md` has names and numbers.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from compressor.coding.arithmetic import BitDecoder, BitEncoder

_Ints = npt.NDArray[np.int64]

_UNIT, _FULL, _PRIOR = 64, 16000, 32
_HEAVY, _LIGHT, _OWN, _HEAVIEST = 10800, 3600, 4000, 1 << 20
_LIMIT = 3583
_HALF = 1 << 15
_EDGES = np.array([1, 2, 4, 8, 20, 60, 250])  # of buckets, in flags seen


@cache
def log_table() -> _Ints:
    """256 log2(x) by the 8 bits after the first, (65536,); of 0, nothing sensible."""
    # floor(512 log2(1 + f / 256)) is the length of a power; half of it, rounded
    fine = [(((256 + f) ** 512).bit_length() - 4096) // 2 for f in range(256)]
    x = np.arange(1 << 16)
    top = np.frexp(np.maximum(x, 1))[1] - 1
    found: _Ints = 256 * top + np.array(fine)[((x << (15 - top)) >> 7) & 255]
    return found.astype(np.int64)


def _nearest_power(f: int) -> int:
    """2^(16 + f / 256), rounded: the t with (2 t - 1)^256 <= 2^(17 * 256 + f) < (2 t + 1)^256."""
    low, high, target = 1 << 16, 1 << 17, 1 << (17 * 256 + f)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if (2 * middle - 1) ** 256 <= target else (low, middle - 1)
    return low


@cache
def chance_table() -> _Ints:
    """2^16 / (1 + 2^(x / 256)), rounded down, (3584,)."""
    powers = [_nearest_power(f) for f in range(256)]
    return np.array([(1 << 32) // (65536 + (powers[x & 255] << (x >> 8))) for x in range(3584)])


class Mixer:
    """Statistics and weights of one kind of flag."""

    def __init__(self, widths: list[int], sets: int, nodes: int, rate: int) -> None:
        inputs = len(widths)
        ends = np.cumsum([nodes * width for width in widths])
        self._base = (ends - nodes * np.array(widths))[:, None]
        self._width = np.array(widths)[:, None]
        self._zeros, self._ones = np.zeros((2, int(ends[-1]) + nodes), dtype=np.int64)
        self._own = int(ends[-1])
        self._weights = np.full((sets, inputs + 1, 8), _HEAVY, dtype=np.int64)
        self._weights[:, :, :2] = _LIGHT
        self._weights[:, -1] = _OWN
        self._flat = self._weights.reshape(-1)
        self._input = np.arange(inputs + 1)[:, None]
        self._rate = rate

    def predict(self, sets: _Ints, nodes: _Ints, contexts: _Ints) -> _Ints:
        """Return the chance of a 1, of 2^16, for each lane; ``contexts`` is (inputs, lanes)."""
        own = self._own + nodes
        at = np.vstack([self._base + nodes * self._width + contexts, own])
        ones, zeros = self._ones[at], self._zeros[at]
        bucket = np.searchsorted(_EDGES, (ones[:-1] + zeros[:-1]) // _UNIT, side="right")
        ones[-1] += _UNIT // 2
        zeros[-1] += _UNIT // 2
        one = np.clip(_PRIOR * ones[-1] // (ones[-1] + zeros[-1]), 1, _PRIOR - 1)
        ones[:-1] += one
        zeros[:-1] += _PRIOR - one
        self._odds = log_table()[ones] - log_table()[zeros]
        self._place = (sets * len(self._input) + self._input) * 8
        self._place[:-1] += bucket
        self._at = at
        mixed: _Ints = np.sum(self._flat[self._place] * self._odds, axis=0) >> 16
        small = chance_table()[np.minimum(np.abs(mixed), _LIMIT)]
        self._chance: _Ints = np.where(mixed >= 0, 65536 - small, small)
        return self._chance

    def learn(self, bits: _Ints) -> None:
        """Learn from the flags that came, all at once."""
        error = (bits << 16) - self._chance
        np.add.at(self._flat, self._place, error * self._odds * self._rate >> 20)
        self._flat[self._place] = np.clip(self._flat[self._place], -_HEAVIEST, _HEAVIEST)
        at = self._at
        np.add.at(self._ones, at, np.broadcast_to(_UNIT * bits, at.shape))
        np.add.at(self._zeros, at, np.broadcast_to(_UNIT * (1 - bits), at.shape))
        while len(at := at[self._ones[at] + self._zeros[at] > _FULL]):
            self._ones[at] -= self._ones[at] >> 1
            self._zeros[at] -= self._zeros[at] >> 1


class Magnitudes:
    """Codes whole numbers of 1 and more: how many bits follow the first one, then those bits.

    ``mixer`` has 4 nodes for each number of bits. Two of the bits are modelled, the others even.
    """

    def __init__(self, mixer: Mixer, coder: BitEncoder | BitDecoder) -> None:
        self._mixer, self._coder = mixer, coder

    def code(self, contexts: _Ints, most: _Ints, sizes: _Ints) -> _Ints:
        """Code magnitudes (lanes,), each with at most ``most`` bits after its first."""
        bits, value = np.zeros_like(sizes), np.ones_like(sizes)
        depth = np.where(most > 0, most, 0)
        unary = most > 0
        while True:
            lanes = np.flatnonzero(unary | (depth > 0))
            if not len(lanes):
                return value
            modelled = lanes[unary[lanes] | (value[lanes] < 4)]
            first = unary[lanes]
            shift = np.where(first, bits[lanes] + 1, depth[lanes] - 1)
            wanted = np.where(first, sizes[lanes] >> shift != 0, sizes[lanes] >> shift & 1)
            nodes = 4 * bits[modelled] + np.where(unary[modelled], 0, value[modelled])
            came = self._mixed(lanes, modelled, nodes, contexts, wanted)
            grown = lanes[first & (came == 1)]
            bits[grown] += 1
            binary = lanes[~first]
            value[binary] = 2 * value[binary] + came[~first]
            depth[binary] -= 1
            ended = lanes[first & ((came == 0) | (bits[lanes] == most[lanes]))]
            unary[ended] = False
            depth[ended] = bits[ended]

    def _mixed(
        self, lanes: _Ints, modelled: _Ints, nodes: _Ints, contexts: _Ints, wanted: _Ints
    ) -> _Ints:
        """Code a flag for each of ``lanes``; those that are not modelled are even."""
        chances = np.full(len(lanes), _HALF, dtype=np.int64)
        inner = np.isin(lanes, modelled)
        if len(modelled):
            chances[inner] = self._mixer.predict(nodes, nodes, contexts[:, modelled])
        came = self._coder.code(chances, wanted)
        if len(modelled):
            self._mixer.learn(came[inner])
        return came
