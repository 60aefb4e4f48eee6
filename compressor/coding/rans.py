"""Range asymmetric numeral systems (rANS; Duda 2009, arXiv:1311.2540): symbols to words and back.

Static frequencies that sum to 2^14, chosen for each symbol by its *context* among several tables.
States have 32 bits and stay in [2^16, 2^32); words of 16 bits go in and out. Symbol i belongs to
lane i mod L: the lanes' states are NumPy arrays, so that L symbols are coded at once. Lanes share
one sequence of words, in the order in which the decoder asks for them.

Beside the entropy under the tables, a stream costs its lanes' states: 4 bytes each, of which 2 are
what the state must hold at the least, and 1 byte. Rounding within the states costs under 0.001 bit
per symbol. Every state starts from 2^16, so the decoder ends there, or the stream is damaged.
"""

from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding import streams_core
from compressor.coding.frequencies import PRECISION, TOTAL, Frequencies
from compressor.errors import ArtifactError

MAX_LANES = 12
"""Most lanes, as a power of two."""
MAX_STEPS = 1 << 15
"""Most symbols of a lane, unless there are 2^12 lanes already: bounds the work in Python."""
_LOW = 1 << 16
_BYTES_PER_LANE = 2048
_BLOCK = 1 << 17
_FEW = 8  # lanes; up to as many, plain integers are faster than arrays of a lane each

Symbols = npt.NDArray[np.unsignedinteger[Any]]
Contexts = npt.NDArray[np.uint8]


def fewest_lanes(symbols: int) -> int:
    """Return the power of two of lanes that ``symbols`` take at the least."""
    return min(MAX_LANES, max(0, -(-symbols // MAX_STEPS) - 1).bit_length())


def choose_lanes(symbols: int, bits: int) -> int:
    """Return the power of two of lanes whose states add 0.1 to 0.3 % to ``bits``."""
    wanted = (bits // (8 * _BYTES_PER_LANE)).bit_length()
    return max(fewest_lanes(symbols), min(MAX_LANES, wanted, symbols.bit_length()))


def stream_size(lanes: int, bits: int) -> int:
    """Return the likely bytes of a stream: states are wider than need be by 1 byte on average."""
    return 1 + (3 << lanes) + (bits + 7) // 8


def encode(
    symbols: Symbols, contexts: Contexts | None, tables: list[Frequencies], lanes: int
) -> bytes:
    """Return the stream of ``symbols`` (n,), each with a frequency in ``tables[contexts[i]]``."""
    found = streams_core.encode_rans(tables, symbols, contexts, lanes)
    if found is not None:
        return found
    alphabet = max(len(table) for table in tables)
    frequencies = np.zeros((len(tables), alphabet), dtype=np.uint32)
    for row, table in zip(frequencies, tables, strict=True):
        row[: len(table)] = table
    starts = np.cumsum(frequencies, axis=1, dtype=np.uint32) - frequencies
    width = 1 << lanes
    states = np.full(width, _LOW, dtype=np.uint32)
    chunks: list[npt.NDArray[np.uint16]] = []
    for first in range((max(len(symbols), 1) - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        places = symbols[first : first + _BLOCK].astype(np.intp)
        if contexts is not None:
            places += contexts[first : first + _BLOCK].astype(np.intp) * alphabet
        encode_block = _encode_few if width <= _FEW else _encode_block
        encode_block(frequencies.take(places), starts.take(places), states, chunks)
    words = np.concatenate([*reversed(chunks), np.empty(0, dtype=np.uint16)])
    return bytes([lanes]) + states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


def _encode_block(
    frequencies: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint32],
    states: npt.NDArray[np.uint32],
    chunks: list[npt.NDArray[np.uint16]],
) -> None:
    """Take a block's symbols into ``states`` (lanes,), last first; append the words put out."""
    width = len(states)
    for at in range((len(frequencies) - 1) // width * width, -1, -width):
        frequency, start = frequencies[at : at + width], starts[at : at + width]
        state = states[: len(frequency)]
        full = np.flatnonzero(state >> np.uint32(32 - PRECISION) >= frequency)
        if len(full):
            large = state[full]
            chunks.append(large.astype(np.uint16))
            state[full] = large >> np.uint32(16)
        quotient = state // frequency
        state += start  # x - q f + start + 2^14 q, modulo 2^32
        state += quotient * (np.uint32(TOTAL) - frequency)


def _encode_few(
    frequencies: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint32],
    states: npt.NDArray[np.uint32],
    chunks: list[npt.NDArray[np.uint16]],
) -> None:
    """Do the same symbol by symbol."""
    mask = len(states) - 1
    lane = len(frequencies) & mask
    few, words = states.tolist(), []
    pairs = zip(reversed(frequencies.tolist()), reversed(starts.tolist()), strict=True)
    for frequency, start in pairs:
        lane = lane - 1 & mask
        state = few[lane]
        if state >> 32 - PRECISION >= frequency:
            words.append(state & _LOW - 1)
            state >>= 16
        quotient, rest = divmod(state, frequency)
        few[lane] = (quotient << PRECISION) + rest + start
    states[:] = few
    chunks.append(np.array(words[::-1], dtype=np.uint16))


class Decoder:
    """Reads a stream of ``total`` symbols; every table must sum to 2^14.

    Raises:
        ArtifactError: too few or too many lanes; a stream too short for its lanes or symbols.
    """

    def __init__(self, stream: memoryview, tables: list[Frequencies], total: int) -> None:
        lanes = stream[0] if len(stream) else 0
        if not fewest_lanes(total) <= lanes <= MAX_LANES:
            raise ArtifactError(f"{total} symbols cannot be in 2^{lanes} lanes")
        head = 1 + (4 << lanes)
        if len(stream) < head or (len(stream) - head) % 2:
            raise ArtifactError(f"2^{lanes} lanes and words cannot be in {len(stream)} bytes")
        self._states = np.frombuffer(stream[1:head], dtype="<u4").astype(np.uint32)
        if self._states.min() < _LOW:
            raise ArtifactError("a rANS state is below 2^16")
        self._words = np.frombuffer(stream[head:], dtype="<u2").astype(np.uint32)
        self._next = 0
        slots = np.arange(TOTAL, dtype=np.uint32)
        symbols, frequencies, biases = [], [], []
        for table in tables:
            each = np.repeat(np.arange(len(table)), table)
            symbols.append(each.astype(np.uint32))
            frequencies.append(table[each].astype(np.uint32))
            biases.append(slots - (np.cumsum(table) - table)[each].astype(np.uint32))
        self._symbols, self._frequencies = np.concatenate(symbols), np.concatenate(frequencies)
        self._biases = np.concatenate(biases)

    def read(self, count: int, contexts: Contexts | None = None) -> npt.NDArray[np.uint32]:
        """Return ``count`` symbols: a multiple of 2^12, but for the last call."""
        width = len(self._states)
        if width <= _FEW:
            return self._read_few(count, contexts)
        base = None if contexts is None else contexts.astype(np.uint32) << np.uint32(PRECISION)
        out = np.empty(count, dtype=np.uint32)
        mask = np.uint32(TOTAL - 1)
        for at in range(0, count, width):
            slot = out[at : at + width]
            state = self._states[: len(slot)]
            np.bitwise_and(state, mask, out=slot)
            if base is not None:
                slot += base[at : at + width]
            state >>= np.uint32(PRECISION)
            state *= self._frequencies.take(slot)
            state += self._biases.take(slot)
            low = np.flatnonzero(state < _LOW)
            if len(low):
                self._refill(state, low)
        return self._symbols.take(out)

    def _read_few(self, count: int, contexts: Contexts | None) -> npt.NDArray[np.uint32]:
        """Do the same symbol by symbol."""
        frequencies, biases, words = self._frequencies.data, self._biases.data, self._words.data
        bases = repeat(0, count) if contexts is None else contexts.tolist()
        states, place, lane, mask = self._states.tolist(), self._next, 0, len(self._states) - 1
        slots: list[int] = []
        try:
            for base in bases:
                state = states[lane]
                slot = base << PRECISION | state & TOTAL - 1
                state = frequencies[slot] * (state >> PRECISION) + biases[slot]
                if state < _LOW:
                    state = state << 16 | words[place]
                    place += 1
                states[lane] = state
                lane = lane + 1 & mask
                slots.append(slot)
        except IndexError:
            raise ArtifactError("a rANS stream ends before its last symbol") from None
        self._next = place
        self._states[:] = states
        return self._symbols.take(np.array(slots, dtype=np.intp))

    def _refill(self, state: npt.NDArray[np.uint32], low: npt.NDArray[np.intp]) -> None:
        words = self._words[self._next : self._next + len(low)]
        if len(words) < len(low):
            raise ArtifactError("a rANS stream ends before its last symbol")
        self._next += len(low)
        state[low] = state[low] << np.uint32(16) | words

    def finish(self) -> None:
        """Raise unless all words have been read and all states are back where they started."""
        if self._next != len(self._words):
            raise ArtifactError(f"a rANS stream has {len(self._words) - self._next} words too many")
        if np.any(self._states != _LOW):
            raise ArtifactError("a rANS stream does not end in the state it started from")
