"""Deep Compression's format as public scripts of the paper write it, by its plainest method.

Han, Mao and Dally 2016, sections 3 and 4: k-means weights as indices, positions of the non-zero
ones as gaps of four bits with fillers, and a Huffman code each for gaps and indices. Codes are
strings of "0" and "1" in a dictionary; the decoder walks a tree of dictionaries bit by bit. That is
what makes the scripts slow, and it is what the speed benchmark means by the naive method.
"""

import heapq
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.quantization.clustering import cluster

GAP_BITS = 4
"""Width of a gap before it is Huffman-coded; a longer run of zeros takes fillers (figure 2)."""

Indices = npt.NDArray[np.unsignedinteger[Any]]
Floats = npt.NDArray[np.float32]
Tree = dict[str, Any]


def share(weights: Floats, bits: int) -> tuple[Indices, Floats]:
    """Indices of the weights' shape, 0 for a zero weight, and a codebook of at most 2^bits.

    Linear start, as the paper found best. Zeros take no entry of the codebook.
    """
    flat = weights.reshape(-1)
    kept = flat[flat != 0]
    indices = np.zeros(flat.shape, dtype=np.uint32)
    if not kept.size:
        return indices.reshape(weights.shape), np.zeros(0, dtype=np.float32)
    found = cluster(kept, 1 << bits)
    indices[flat != 0] = found.labels.astype(np.uint32) + 1
    return indices.reshape(weights.shape), found.codebook


def pack(indices: Indices, codebook: Floats) -> bytes:
    """Write one tensor: a header of 16 bytes, code lengths of a byte a symbol, codebook, streams.

    A code is canonical, so its lengths are all of it. The shape is left to the container.
    """
    gaps, values = entries(indices)
    tables, streams = [], []
    for symbols, alphabet in ((gaps, 1 << GAP_BITS), (values, len(codebook) + 1)):
        code = huffman(symbols)
        tables.append(bytes(len(code.get(symbol, "")) for symbol in range(alphabet)))
        streams.append("".join([code[symbol] for symbol in symbols]) if len(code) > 1 else "")
    head = struct.pack("<4I", len(codebook), len(gaps), len(streams[0]), indices.size)
    parts = [head, *tables, codebook.tobytes(), *(to_bytes(bits) for bits in streams)]
    return b"".join(parts)


def unpack(data: bytes) -> Floats:
    """The weights, float32 of shape (n,)."""
    k, count, gap_bits, size = struct.unpack_from("<4I", data)
    at = 16
    codes = []
    for alphabet in (1 << GAP_BITS, k + 1):
        codes.append(canonical(data[at : at + alphabet]))
        at += alphabet
    codebook = np.frombuffer(data, dtype="<f4", count=k, offset=at)
    at += 4 * k
    middle = at + (gap_bits + 7) // 8
    gaps = walk(codes[0], to_bits(data[at:middle]), count)
    values = walk(codes[1], to_bits(data[middle:]), count)
    weights = np.zeros(size, dtype=np.float32)
    position = -1
    for gap, value in zip(gaps, values, strict=True):
        position += gap + 1
        if value:
            weights[position] = codebook[value - 1]
    return weights


def entries(indices: Indices) -> tuple[list[int], list[int]]:
    """Gaps and indices of the non-zero weights, with a filler (index 0) for each longer gap.

    A gap counts the zeros skipped. A filler skips 15 zeros and stands on a sixteenth.
    """
    flat = indices.reshape(-1)
    longest = (1 << GAP_BITS) - 1
    gaps: list[int] = []
    values: list[int] = []
    last = -1
    for position in np.flatnonzero(flat).tolist():
        fillers, gap = divmod(position - last - 1, longest + 1)
        gaps += [longest] * fillers + [gap]
        values += [0] * fillers + [int(flat[position])]
        last = position
    return gaps, values


def huffman(symbols: Sequence[int]) -> dict[int, str]:
    """A canonical Huffman code as strings; "0" for a symbol that is alone."""
    counts = Counter(symbols)
    heap: list[tuple[int, int, tuple[int, ...]]]
    heap = [(count, symbol, (symbol,)) for symbol, count in counts.items()]
    heapq.heapify(heap)
    lengths = dict.fromkeys(counts, int(len(counts) == 1))
    while len(heap) > 1:
        few, tie, left = heapq.heappop(heap)
        many, _, right = heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (few + many, tie, left + right))
    return canonical_of(lengths)


def canonical(lengths: bytes) -> dict[int, str]:
    """The code of a table of lengths, 0 for a symbol that has none."""
    return canonical_of({symbol: length for symbol, length in enumerate(lengths) if length})


def canonical_of(lengths: Mapping[int, int]) -> dict[int, str]:
    """Codewords counted upwards, shorter before longer, smaller symbols before larger."""
    code: dict[int, str] = {}
    word, last = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        word <<= length - last
        code[symbol] = format(word, f"0{length}b")
        word, last = word + 1, length
    return code


def walk(code: Mapping[int, str], bits: Iterator[str], count: int) -> list[int]:
    """Read ``count`` symbols, one bit and one dictionary at a time; none of a symbol alone."""
    if len(code) == 1:
        return [*code] * count
    tree: Tree = {}
    for symbol, word in code.items():
        branch = tree
        for bit in word[:-1]:
            branch = branch.setdefault(bit, {})
        branch[word[-1]] = symbol
    found: list[int] = []
    for _ in range(count):
        node: Any = tree
        while isinstance(node, dict):
            node = node[next(bits)]
        found.append(node)
    return found


def to_bytes(bits: str) -> bytes:
    """Eight characters a byte, the first in the high bit; zeros at the end."""
    whole = bits + "0" * (-len(bits) % 8)
    return bytes(int(whole[at : at + 8], 2) for at in range(0, len(whole), 8))


def to_bits(data: bytes) -> Iterator[str]:
    """The reverse of `to_bytes`, padding included."""
    return iter("".join(format(byte, "08b") for byte in data))
