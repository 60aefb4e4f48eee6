"""Symbols to a bit stream and back, block by block, so that memory does not grow with the stream.

The first bit is the most significant of the first byte; the last byte is padded with zeros.
"""

from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding import streams_core
from compressor.coding.huffman import LONGEST, Lengths, canonical_codes, canonical_order
from compressor.errors import ArtifactError

_CHUNK = 1 << 14
"""Stream bytes whose 8 x _CHUNK bit positions are looked up at once (about 2 MB of scratch)."""


class SymbolWriter:
    """Writes symbols in the code ``lengths`` (complete; see `compressor.coding.huffman`)."""

    def __init__(self, lengths: Lengths) -> None:
        self._lengths = lengths.astype(np.int64)
        self._codes = canonical_codes(lengths)
        self._silent = not len(lengths) or int(lengths.max()) == 0
        self._bytes = bytearray()
        self._free = 0  # unused low bits of the last byte

    def write(self, symbols: npt.NDArray[np.unsignedinteger[Any]]) -> None:
        """Append symbols (n,), each of them in the code."""
        if self._silent or not len(symbols) or self._write_in_c(symbols):
            return
        lengths = self._lengths[symbols]
        carried = 8 - self._free if self._free else 0
        ends = np.cumsum(lengths)
        ends += carried
        packed = _pack(self._codes[symbols], lengths, ends)
        if carried:
            packed[0] |= self._bytes.pop()
        self._bytes += packed
        self._free = -int(ends[-1]) % 8

    def _write_in_c(self, symbols: npt.NDArray[np.unsignedinteger[Any]]) -> bool:
        bits = 8 * len(self._bytes) - self._free
        first = bits // 8
        out = np.zeros(1 + (LONGEST * len(symbols) + 15) // 8, dtype=np.uint8)
        out[: len(self._bytes) - first] = self._bytes[first:]
        end = streams_core.encode_symbols(
            self._codes.astype(np.uint32),
            self._lengths.astype(np.uint8),
            np.ascontiguousarray(symbols, dtype=np.uint32),
            out,
            bits - 8 * first,
        )
        if end is None:
            return False
        self._bytes[first:] = out[: (end + 7) // 8].tobytes()
        self._free = -end % 8
        return True

    def finish(self) -> bytes:
        """Return the stream."""
        return bytes(self._bytes)


def _pack(
    codes: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> bytearray:
    """Lay codewords (n,) into bytes so that each ends just before its bit position in ``ends``.

    In 64-bit words: codewords that start in the same word are merged by one segmented OR, and
    the few that cross into the next word (at most one each) are added there.
    """
    word = (ends - lengths) >> 6
    room = ((word + 1) << 6) - ends  # bits of the word after the codeword; negative: it crosses
    left, right = np.maximum(room, 0).astype(np.uint64), np.maximum(-room, 0).astype(np.uint64)
    first = np.concatenate([[0], np.flatnonzero(word[1:] != word[:-1]) + 1])
    words = np.zeros(int(word[-1]) + 2, dtype=np.uint64)
    words[word[first]] = np.bitwise_or.reduceat((codes << left) >> right, first)
    crossing = np.flatnonzero(room < 0)
    words[word[crossing] + 1] |= codes[crossing] << (np.uint64(64) - right[crossing])
    return bytearray(words.astype(">u8").tobytes()[: (int(ends[-1]) + 7) // 8])


class SymbolReader:
    """Reads ``stream`` in the code ``lengths`` (complete; see `compressor.coding.huffman`).

    At *every* bit position of a chunk the codeword that would start there is looked up at once,
    in NumPy; a plain loop then hops from codeword to codeword. Since the code is complete and
    its codewords have one bit or more, the hops always move on. A code of one symbol reads no
    bits.
    """

    def __init__(self, lengths: Lengths, stream: memoryview) -> None:
        order = canonical_order(lengths)
        self._width = int(lengths.max(initial=0))
        spans = 1 << (self._width - lengths[order].astype(np.int64))
        self._symbol_of = np.repeat(order, spans).astype(np.uint32)
        self._length_of = np.repeat(lengths[order], spans)
        self._stream = np.frombuffer(stream, dtype=np.uint8)
        self._next_byte = 0
        self._windows: npt.NDArray[np.integer[Any]] = np.empty(0, dtype=np.uint32)
        self._hops: list[int] = []
        self._bit = 0  # position in the chunk, possibly past its end

    def read(self, count: int) -> npt.NDArray[np.uint32]:
        """Return the next ``count`` symbols."""
        if self._width == 0:
            return np.full(count, self._symbol_of[0])
        out = np.empty(count, dtype=np.uint32)
        filled = 0
        while filled < count:
            if self._bit >= len(self._hops):
                self._load_chunk()
            starts, self._bit = _hop(self._hops, self._bit, count - filled)
            out[filled : filled + len(starts)] = self._symbol_of[self._windows[starts]]
            filled += len(starts)
        return out

    def finish(self) -> None:
        """Raise unless the symbols read end in the stream's last byte, followed by zeros."""
        used = 8 * self._next_byte - len(self._hops) + self._bit
        if not 0 <= 8 * len(self._stream) - used < 8:
            raise ArtifactError(
                f"a bit stream of {len(self._stream)} bytes holds {used} bits of symbols"
            )
        if used % 8 and self._stream[-1] & (0xFF >> used % 8):
            raise ArtifactError("a bit stream's padding is not zero")

    def _load_chunk(self) -> None:
        start = self._next_byte
        size = min(_CHUNK, len(self._stream) - start)
        if size <= 0:
            raise ArtifactError("a bit stream ends before its last symbol")
        padded = np.zeros(size + 2, dtype=np.uint32)  # codewords have 17 bits at most: 3 bytes
        beyond = self._stream[start : start + size + 2]
        padded[: len(beyond)] = beyond
        three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
        shifts = np.arange(24 - self._width, 16 - self._width, -1, dtype=np.uint32)
        windows = (three[:, None] >> shifts).reshape(-1)
        windows &= np.uint32((1 << self._width) - 1)
        self._windows = windows
        self._bit -= len(self._hops)
        self._hops = self._length_of[self._windows].tolist()
        self._next_byte += size


def _hop(hops: list[int], position: int, count: int) -> tuple[list[int], int]:
    """Return up to ``count`` codeword starts from ``position`` on, and the position after them."""
    starts: list[int] = []
    append = starts.append
    try:
        for _ in repeat(None, count):
            step = hops[position]
            append(position)
            position += step
    except IndexError:  # the end of the chunk: cheaper than a comparison at each codeword
        pass
    return starts, position
