"""Writes the golden files; run once per format version, `python -m tests.golden.make`.

`GOOD` maps a file to the arguments of `encode` that it must come from. `bad_files` builds, byte by
byte and with true checksums wherever those are not the point, files that a reader must refuse,
each with a part of the message it must give; the messages are kept in `bad/messages.json`.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compressor.artifact import Shared, decode, encode
from compressor.artifact.layout import deflate
from compressor.artifact.levels import LevelMap
from compressor.coding import context, rans
from compressor.coding.buffer import ByteReader, varint
from compressor.coding.frequencies import read_frequencies
from tests.golden.building import directory, file, tensor, text

HERE = Path(__file__).parent


def noise(size: int, seed: int) -> np.ndarray:
    """Integers below 2^31 from a linear congruential generator, the same everywhere for good."""
    out, state = [], seed
    for _ in range(size):
        state = (1103515245 * state + 12345) % (1 << 31)
        out.append(state >> 8)
    return np.array(out, dtype=np.int64)


def sparse(size: int, seed: int, symbols: int, keep: int) -> np.ndarray:
    """Indices, about ``keep`` % of them non-zero, small ones more often."""
    kept = noise(size, seed) % 100 < keep
    return np.where(kept, 1 + noise(size, seed + 1) % symbols * (noise(size, seed + 2) % 3) // 2, 0)


def floats(size: int, seed: int) -> np.ndarray:
    """float32 values in [-1, 1) which float16 does not hold."""
    return (noise(size, seed) / np.float32(1 << 22) - 1).astype(np.float32)


def bits(*patterns: int) -> np.ndarray:
    """float32 values with these bit patterns."""
    return np.array(patterns, dtype=np.uint32).view(np.float32)


_example = np.zeros(32, dtype=np.uint8)
_example[[1, 4, 15, 17, 21, 28]] = [2, 1, 3, 2, 1, 1]
_book = np.array([-0.5, 0.25, 1.5], dtype=np.float32)
_pruned = np.where(sparse(900, 3, 2, 8) > 0, floats(900, 4), np.float32(0)).reshape(30, 30)
_many = (noise(3000, 8) % 300 * (noise(3000, 9) % 2)).astype(np.uint16)
_conv, _dense = sparse(2000, 1, 8, 25).astype(np.uint8), 1 + sparse(600, 6, 5, 60).astype(np.uint16)

TENSORS: dict[str, Any] = {
    "conv.weight": Shared(_conv.reshape(5, 4, 10, 10), floats(8, 2)),
    "conv.bias": floats(5, 5),
    "norm.weight": np.ones(40, dtype=np.float32),
    "dense.weight": Shared(_dense.reshape(20, 30), floats(6, 7)),
    "fc.weight": _pruned,
    "fc.half": np.where(_pruned != 0, np.float32(0.5), np.float32(0)),
    "far.weight": Shared(np.eye(1, 9000, 8765, dtype=np.uint32), np.array([2.0], np.float32)),
    "many.weight": Shared(_many, floats(299, 9)),
}

_scales = 1 + noise(24, 11)[:, None, None] % 5 + 2 * (noise(20, 12)[None, :, None] % 4)
_scaled = noise(24 * 20 * 9, 13).reshape(24, 20, 9) % 15 * _scales // 60
_leaps = (1 << noise(900, 14) % 9) + noise(900, 15) % (1 << noise(900, 14) % 9)
_tail = np.zeros(100_000, dtype=np.uint8)
_tail[np.cumsum(_leaps)] = 1 + noise(900, 16) % 7 // 5
RANS_TENSORS: dict[str, Any] = {
    **TENSORS,
    "half.bias": floats(60, 24).astype(np.float16).astype(np.float32),
    "scaled.weight": Shared(_scaled.astype(np.uint8).reshape(24, 20, 3, 3), floats(15, 16)),
    "tail.weight": Shared(_tail.reshape(250, 400), floats(2, 17)),
    "lanes.weight": Shared((noise(40_000, 20) % 9 // 7).astype(np.uint8), floats(1, 21)),
    "plain.weight": Shared((noise(700, 18) % 7 // 5).astype(np.uint8), floats(2, 19)),
}


def grid(negative: int, positive: int, step: float) -> np.ndarray:
    """A codebook of all multiples of a step but 0."""
    levels = [level for level in range(-negative, positive + 1) if level]
    return np.array(levels, np.float32) * np.float32(step)


_image = (
    noise(12 * 2 * 36, 22) % 9 * (noise(12, 23)[:, None].repeat(72, 1).ravel() % 3) // 8
).astype(np.uint8)
_image[:400] = np.where(np.arange(400) % 6 < 3, 0, 1 + noise(400, 25) % 2)
_wide = noise(24 * 20 * 9, 26).reshape(24, 20, 9) % 15 * _scales * _scales // 90
CONTEXT_TENSORS: dict[str, Any] = {
    "quantized.bias": (noise(50, 27) % 1000 - 300).astype(np.float32) * np.float32(0.003),
    "constant": np.full(33, 0.3, np.float32),
    "scaled.weight": Shared(_scaled.astype(np.uint8).reshape(24, 20, 3, 3), floats(15, 16)),
    "wide.weight": Shared(_wide.astype(np.uint16).reshape(24, 20, 9, 1), grid(130, 90, 0.01)),
    "image.weight": Shared(_image.reshape(12, 72), bits(0x3F000000, 0xBF000000)),
    "tall.weight": Shared(_scaled[:, :15].astype(np.uint8).reshape(360, 9), grid(7, 8, 0.125)),
    "vector": Shared(_scaled.astype(np.uint8)[3].reshape(180), floats(15, 16)),
    "signless.weight": Shared(_scaled[:4].astype(np.uint8).reshape(8, 10, 9), -grid(0, 15, 3.0)),
}
_million = 1 << 20
_rows = (noise(1025, 30) % 2)[:, None].repeat(1024, 1)
_rows[noise(40, 31) % 1025, noise(40, 32) % 1024] ^= 1
_few = np.zeros(_million + 3000, dtype=np.uint8)
_few[noise(70, 33) * 97 % _million] = 1 + noise(70, 34) % 3
_few[_million + 500 * np.arange(6)] = 2
_late = np.zeros(2 * _million + 60, dtype=np.uint8)
_late[_million + noise(50, 35) % 50_000] = 1
_far = np.where(_late == 1, np.float32(0.1), np.float32(0))
_far[[5, -1]] = [np.float32(0.3), np.float32(-0.7)]
_digits = "0100001003110202000202021100010000000000002000010311001022011300"
_four = np.array([int(digit) for digit in _digits], dtype=np.uint8)

GOOD: dict[str, dict[str, Any]] = {
    "example": {
        "tensors": {
            "fc.weight": Shared(_example.reshape(4, 8), _book),
            "fc.bias": np.array([0.1, -0.2, 0.3, 0.4], dtype=np.float32),
        }
    },
    "empty": {"tensors": {}},
    "huffman": {"tensors": TENSORS, "graph": b"graph " * 50, "metadata": {"tool": "1", "née": "é"}},
    "rans": {"tensors": RANS_TENSORS, "profile": "fast"},
    "rans-example": {
        "tensors": {"fc.weight": Shared(_four.reshape(8, 8), _book)},
        "profile": "fast",
    },
    "context": {"tensors": CONTEXT_TENSORS, "profile": "best"},
    "flat": {"tensors": TENSORS, "profile": "flat"},
    "segments": {
        "tensors": {
            "rows.weight": Shared(_rows.astype(np.uint8), floats(1, 36)),
            "few.weight": Shared(_few, floats(3, 37)),
            "late.weight": Shared(_late, floats(1, 38)),
        },
        "profile": "fast",
    },
    "segments-huffman": {
        "tensors": {"late.weight": Shared(_late.reshape(4, -1), floats(1, 38)), "far": _far}
    },
    "dtypes": {
        "tensors": {
            name: np.array([[0, 1, 2], [100, 1, 0]]).astype(name)
            for name in (
                *("float32", "float16", "float64", "bool", "int8", "int16", "int32", "int64"),
                *("uint8", "uint16", "uint32", "uint64"),
            )
        },
        "graph": b"",
    },
    "extremes": {
        "tensors": {
            "": np.array(-3, dtype=np.int64),
            "no elements": np.zeros((3, 0, 2), dtype=np.float32),
            "all zero": np.zeros((7, 9), dtype=np.float32),
            "shared zeros": Shared(np.zeros((50, 20), dtype=np.uint8), np.empty(0, np.float32)),
            "one value": Shared(np.ones((2, 1, 3, 1, 5), dtype=np.uint8), bits(0x3F800001)),
            "unused": Shared(np.full(300, 3, dtype=np.uint8), floats(4, 1)),
            "nan and zeros": np.concatenate(
                [bits(0x7FC00001, 0xFFA00000, 0x7F800001, 0x80000000), np.zeros(90, np.float32)]
            ),
            "infinite": bits(*[0x7F800000, 0xFF800000, 0x80000000, 0x33800000] * 3),
        }
    },
}


def coded(payload: bytes, indices: list[int], mode: int = 2) -> bytes:
    """A file of one coded tensor of 100 weights; ``indices`` give its decoded checksum."""
    whole = np.array(indices + [0] * (100 - len(indices)), dtype="<u4" if mode == 3 else "<u1")
    line = tensor(mode, "w", 100, size=len(payload))
    return file(directory(line), payload, crcs=[zlib.crc32(payload), zlib.crc32(whole.tobytes())])


def gaps(
    *,
    book: bytes = b"\x02\x02" + struct.pack("<2f", 1, 2),
    counts: bytes = b"\x02\x00",
    tables: bytes = bytes([4 * 4, 4 * 3]),
    size: bytes = b"\x01",
    streams: bytes = b"\x60\xb0",
) -> bytes:
    """A GAP_SHARED payload: gaps of 2 bits, 1 and 2; indices 1, 2 in codewords 10 and 11."""
    return book + counts + tables + size + streams


def bad_files() -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content and a part of the message of each file that must be refused."""
    plain = tensor(0, "w", 2)
    whole = file(directory(plain), b"12345678")
    yield "empty", b"", "the file is empty"
    yield "not-dcz", b"PK\x03\x04 something else", "not a .dcz artifact"
    yield "as-text", whole.replace(b"\r\n", b"\n"), "altered in transfer as if it were text"
    yield "cut-in-magic", whole[:5], "truncated: it ends after 5 bytes"
    yield "cut-in-header", whole[:20], "the file is truncated"
    yield "cut-in-directory", whole[:28], "the file is truncated"
    yield "cut-in-payload", whole[:-1], "the file is truncated"
    yield "trailing-byte", whole + b"\x00", "1 bytes too many"
    yield "version", file(directory(), version=2), "format version 2"
    yield "feature", file(directory(), features=4), "unknown features 0x0004"
    yield "header-damaged", whole[:24] + b"\x01" + whole[25:], "its checksum does not match"
    yield "payload-damaged", whole[:-1] + b"9", "its checksum does not match"
    yield "payload-swapped", whole[:-8] + b"56781234", "its checksum does not match"
    yield from _bad_directories()
    yield from _bad_payloads()
    yield from _bad_entries()
    yield from _bad_segments()
    yield from _bad_rans()
    yield from _bad_contexts()
    yield from _bad_numbers()


def _bad_directories() -> Iterator[tuple[str, bytes, str]]:
    raw, plain = directory(), tensor(0, "w", 2)
    yield "directory-size", file(raw, declared=3), "2 bytes but declares 3"
    yield "directory-huge", file(raw, stored=deflate(raw), declared=1 << 23), "4194304 are the most"
    bomb = deflate(b"\x00" * (1 << 20))
    yield "directory-bomb", file(raw, stored=bomb, declared=99), "does not inflate to the 99 bytes"
    yield "directory-short", file(raw, stored=deflate(raw), declared=3), "does not inflate to the 3"
    yield "directory-garbage", file(raw, stored=b"\xff\xff\xff"), "not a valid deflate stream"
    yield "directory-stored-tail", file(raw, stored=deflate(raw) + b"\x00"), "does not inflate"
    yield "directory-tail", file(raw + b"\x00"), "the directory has 1 bytes too many"
    yield "directory-cut", file(directory(plain)[:-1], crcs=[0]), "the directory is truncated"
    yield "checksum-extra", file(raw, crcs=[0]), "the checksum list has 4 bytes too many"
    yield "checksum-missing", file(directory(plain), b"12345678", crcs=[]), "list is truncated"
    yield "name-twice", file(directory(plain, plain), b"12345678", b"12345678"), "tensor 'w' twice"
    twice = b"\x02" + (text("k") + text("v")) * 2
    yield "metadata-twice", file(directory(metadata=twice)), "the metadata has 'k' twice"
    yield "metadata-many", file(directory(metadata=varint(1025))), "1024 are the most"
    yield "not-utf8", file(directory(tensor(0, b"\xff", 2)), b"12345678"), "not UTF-8"
    yield "varint-long", file(b"\x80\x00\x00"), "superfluous zero byte"
    yield "varint-large", file(b"\xff" * 10 + b"\x00"), "2^64 or more"
    yield "mode", file(directory(tensor(8, "w", 2)), b"12345678"), "mode 8"
    yield "dtype", file(directory(tensor(0xC0, "w", 2)), b"12345678"), "dtype 12"
    yield "mode-dtype", file(directory(tensor(0x11, "w", 2)), b"1234"), "FP16 is for float32 alone"
    yield "dimensions", file(directory(tensor(0, "w", *[1] * 33)), b"1234"), "33 dimensions"
    huge = tensor(2, "w", 1 << 40, size=4)
    yield "huge-tensor", file(directory(huge), b"\0\0\0\0", crcs=[0, 0]), "the limit is"
    hidden = tensor(0, "w", 0, 1 << 62)
    yield "huge-empty-tensor", file(directory(hidden), crcs=[0]), "the limit is"
    several = [tensor(2, str(i), 1 << 29, size=4) for i in range(3)]
    payloads = [b"\0\0\0\0"] * 3
    yield "huge-total", file(directory(*several), *payloads, crcs=[0] * 6), "the limit"
    yield "tensors-many", file(b"\x00" + varint(65537)), "65537 tensors"
    longer = file(directory(tensor(2, "w", 1, size=5)), b"\0\0\0\0\0", crcs=[0, 0])
    yield "longer-than-raw", longer, "coded in 5 bytes; it takes 4"


def _bad_payloads() -> Iterator[tuple[str, bytes, str]]:
    yield "bool", file(directory(tensor(0x30, "w", 2)), b"\x01\x02"), "a bool is stored as a byte"
    yield "half-nan", file(directory(tensor(1, "w", 1)), b"\x00\x7e"), "a float16 is NaN"
    stored = deflate(b"graph")
    yield "graph-longer", file(directory(), graph=(4, stored)), "does not inflate to the 4 bytes"
    yield "graph-shorter", file(directory(), graph=(6, stored)), "does not inflate to the 6 bytes"
    yield "graph-tail", file(directory(), graph=(5, stored + b"\0")), "does not inflate to the 5"
    endless = zlib.compressobj(9, zlib.DEFLATED, -15)
    unfinished = endless.compress(b"graph") + endless.flush(zlib.Z_SYNC_FLUSH)
    yield "graph-unfinished", file(directory(), graph=(5, unfinished)), "does not inflate to the 5"
    yield "graph-huge", file(directory(), graph=(1 << 30, stored)), "the limit is"
    damaged = file(directory(), graph=(5, stored))
    yield "graph-damaged", damaged[:-1] + bytes([damaged[-1] ^ 1]), "its checksum does not match"
    good = [0, 1, 0, 0, 2]
    yield "decoded-checksum", coded(gaps(), [0, 1, 0, 0, 1]), "do not match their checksum"
    yield "codebook-large", coded(gaps(book=varint(65537) + b"\x02"), good), "65536 are the most"
    yield "codebook-cut", coded(b"\x7f\x02\x00", good), "the payload is truncated"
    half = b"\x02\x12" + struct.pack("<2H", 0x3C00, 0xFE01)
    yield "codebook-nan", coded(gaps(book=half), good), "a float16 is NaN"
    yield "gap-width", coded(gaps(book=b"\x00\x0d"), good), "widths go up to 12"
    yield "gap-flags", coded(gaps(book=b"\x00\x42"), good), "widths go up to 12"
    yield "grid-of-floats", coded(b"\x22\x00\x00", [], mode=3), "widths go up to 12"
    for name, head, message in (
        ("grid-negative", b"\x02\x22\x03" + struct.pack("<f", 1), "has 3 negative levels"),
        ("grid-step-zero", b"\x02\x22\x01" + struct.pack("<f", 0), "the step of a grid is 0.0"),
        ("grid-step-nan", b"\x02\x22\x01" + bits(0x7FC00000).tobytes(), "grid is nan"),
    ):
        yield name, coded(gaps(book=head), good), message
    wide = b"\x02\x22\x00" + struct.pack("<f", 3e38)
    yield "grid-infinite", coded(gaps(book=wide), good), "leaves the range of float32"
    yield "counts-large", coded(gaps(counts=b"\x60\x05"), good), "cannot be in 100"
    yield "counts-fillers-alone", coded(b"\x00\x00\x00\x01", []), "0 weights and 1 fillers"
    yield "counts-tail", coded(b"\x00\x00\x00\x00\x00", []), "1 bytes too many"
    values = struct.pack("<2f", 1, 2)
    floats = b"\x02\x02\x00\x10\x01\x60"
    yield "float-values-cut", coded(floats + values[:-1], [], mode=3), "2 values of 4 bytes"
    yield "float-values-tail", coded(floats + values + b"\0", [], mode=3), "2 values of 4 bytes"
    yield "float-filler", coded(floats + bytes(8), [], mode=3), "filler's gap"


def _bad_entries() -> Iterator[tuple[str, bytes, str]]:
    good = [0, 1, 0, 0, 2]
    for name, table, message in (
        ("table-kind", bytes([4 * 4 + 3]), "kind 3"),
        ("table-alphabet", bytes([4 * 5]), "for 5 symbols; the alphabet has 4"),
        ("table-over-full", bytes([4 * 4 + 1, 0b10111100]), "over-full"),
        ("table-incomplete", bytes([4 * 3 + 1, 0b11100000]), "incomplete"),
        ("table-length", bytes([4 * 2 + 1, 0b01111000]), "codeword of 0 bits"),
        ("table-absent", bytes([4 * 3 + 1, 0b11001001]), "ends in absent symbols"),
        ("table-padding", bytes([4 * 2 + 1, 0b11100000]), "padding is not zero"),
        ("table-cut", bytes([4 * 4 + 1, 0, 0, 0, 0]), "truncated or holds a number out of range"),
    ):
        yield name, coded(gaps(tables=table + bytes([4 * 3])), good), message
    more = gaps(tables=bytes([4 * 4, 4 * 4]))
    yield "table-past-codebook", coded(more, good), "for 4 symbols; the alphabet has 3"
    yield "stream-short", coded(gaps(streams=b"\x60"), good), "a bit stream ends before"
    yield "stream-long", coded(gaps(streams=b"\x60\xb0\x00"), good), "2 bytes holds 4 bits"
    yield "stream-padding", coded(gaps(streams=b"\x61\xb0"), good), "padding is not zero"
    yield "stream-past-payload", coded(gaps(size=b"\x09"), good), "the payload is truncated"
    streams = b"\xff" * 6 + b"\xc0" + bytes(3) + b"\x40"  # 25 fillers, then one weight
    past = gaps(counts=b"\x01\x19", size=b"\x07", streams=streams)
    yield "entry-past-end", coded(past, good), "past the end of its 100 weights"
    yield "filler-gap", coded(gaps(counts=b"\x02\x01", streams=b"\xb4\x58"), good), "filler's gap"
    yield (
        "filler-last",
        coded(gaps(counts=b"\x01\x01", streams=b"\x70\x80"), [0, 1]),
        "the last entry is",
    )
    count = gaps(counts=b"\x01\x01", streams=b"\x60\xb0")
    yield "filler-count", coded(count, good), "0 fillers are written where 1 are declared"


def _bad_segments() -> Iterator[tuple[str, bytes, str]]:
    whole = np.zeros(_million + 1, dtype=np.uint8)
    whole[[1, -1]] = [1, 2]

    def one(
        counts: bytes = b"\x02\x00",
        heads: bytes = b"\x01\x00\x03" + b"\x01\x00\x03",
        bodies: bytes = b"\x01\x40\x80" + b"\x01\x00\xc0",
    ) -> bytes:
        payload = gaps(counts=counts, size=heads, streams=bodies)
        line = tensor(2, "w", len(whole), size=len(payload))
        return file(directory(line), payload, crcs=[zlib.crc32(payload), zlib.crc32(whole.data)])

    assert np.array_equal(decode(one()).tensor("w"), np.array([0, 1, 2], np.float32)[whole])
    yield "segment-counts", one(heads=b"\x01\x00\x03\x02\x00\x03"), "in a segment of 1"
    yield "segment-filler", one(heads=b"\x02\x00\x06\x00\x01\x00"), "0 weights and 1 fillers"
    yield "segment-sum", one(counts=b"\x03\x00"), "segments hold (2, 0) weights and fillers, not"
    yield "segment-cut", one(bodies=b"\x01\x40\x80\x01\x00"), "the payload is truncated"
    yield "segment-tail", one(bodies=b"\x01\x40\x80\x01\x00\xc0\x00"), "1 bytes too many"
    hidden = one(counts=b"\x01\x00", heads=b"\x01\x00\x03\x00\x00\x03")
    yield "segment-stream", hidden, "a segment without weights has a stream"
    across = one(bodies=b"\x01\x40\x80" + b"\x01\x40\xc0")
    yield "segment-past-end", across, "past the end of its 1 weights"


def dense(
    *,
    width: bytes = b"\x00",
    classes: bytes = b"\x00",
    table: bytes = bytes([4 * 3]),
    lanes: bytes = b"\x00",
    state: bytes = b"\x00\x00\x01\x00",
    words: bytes = b"",
) -> bytes:
    """A DENSE_RANS payload with a codebook of 2."""
    return b"\x02" + width + struct.pack("<2f", 1, 2) + classes + table + lanes + state + words


def _bad_rans() -> Iterator[tuple[str, bytes, str]]:
    skewed = np.array([13, 2, 1]) * 1024
    indices = np.array(([0] * 13 + [1, 2, 1]) * 7)[:100].astype(np.uint8)
    table = bytes([4 * 3 + 1]) + b"\x09\xd0"  # levels 16, 19, 20
    frequencies = read_frequencies(ByteReader(table, ""), 3)
    assert np.abs(frequencies - skewed).max() < 1024
    stream = rans.encode(indices, None, [frequencies], 0)
    words = stream[5:]

    def one(**changed: bytes) -> bytes:
        whole = {"table": table, "state": stream[1:5], "words": words, **changed}
        return coded(dense(**whole), indices.tolist(), mode=5)

    assert np.array_equal(decode(one()).tensor("w"), np.array([0, 1, 2], np.float32)[indices])
    yield "rans-width", one(width=b"\x03"), "a gap width of 3"
    yield "rans-classes", one(classes=varint(512)), "8 are the most"
    yield "rans-classes-axis", one(classes=b"\x08"), "[1, 2, 1] classes cannot be in axes of"
    few = b"\x01" + varint(4 * 0 + 2) + b"\x00"
    yield "rans-classes-fewer", one(classes=few), "has 1 classes, 2 are declared"
    yield "rans-classes-cut", one(classes=b"\x01\x08\x0c"), "a bit stream ends before"
    yield "rans-table-alphabet", one(table=bytes([4 * 4])), "for 4 symbols, of 3"
    yield "rans-table-start", one(table=b"\x0d\x04"), "start at the level it must"
    yield "rans-table-level", one(table=b"\x0d\x08\x24"), "level -1, not 0 to 30"
    yield "rans-table-absent", one(table=b"\x0d\x09\x10"), "ends in absent symbols"
    yield "rans-table-padding", one(table=b"\x0d\x09\xd1"), "padding is not zero"
    yield "rans-lanes", one(lanes=b"\x0d"), "100 symbols cannot be in 2^13 lanes"
    yield "rans-lanes-cut", one(lanes=b"\x0c"), "2^12 lanes and words cannot be in"
    yield "rans-state", one(state=b"\xff\xff\x00\x00"), "a rANS state is below 2^16"
    yield "rans-words-odd", one(words=words + b"\0"), "2^0 lanes and words cannot be in"
    yield "rans-words-cut", one(words=words[:-2]), "ends before its last symbol"
    yield "rans-words-more", one(words=words + b"\0\0"), "1 words too many"
    yield "rans-end", one(table=b"\x0c", words=b"", state=b"\x01\0\1\0"), "ends before its last"
    yield "rans-end-state", one(table=b"\x02", words=b"", state=b"\x01\0\1\0"), "does not end in"
    entries = gaps(tables=bytes([4 * 4, 4 * 3]), size=b"", streams=b"\x00" + bytes(4))
    yield "rans-entries-state", coded(entries, [0, 1, 0, 0, 2], mode=4), "a rANS state is below"


def _bad_contexts() -> Iterator[tuple[str, bytes, str]]:
    indices = np.array(([0] * 13 + [1, 2, 1]) * 7)[:100]
    order = LevelMap(np.array([1, 2], np.float32)).levels[indices].reshape(1, 100)
    stream = context.encode(order, context.Grid(1, 100, 1, 1, 2, 0, 8))

    def one(
        plane: bytes = b"\x01\x01",
        rate: bytes = b"\x08",
        book: bytes = b"\x02\x00" + struct.pack("<2f", 1, 2),
        stream: bytes = stream,
    ) -> bytes:
        return coded(book + plane + rate + stream, indices.tolist(), mode=6)

    assert np.array_equal(decode(one()).tensor("w"), np.array([0, 1, 2], np.float32)[indices])
    yield "context-width", one(book=b"\x02\x03" + bytes(8)), "a gap width of 3"
    yield "context-codebook", one(book=b"\x00\x00"), "without elements or centroids"
    yield "context-plane-zero", one(plane=b"\x00\x01"), "not planes of 0 x 1"
    yield "context-plane", one(plane=b"\x03\x01"), "100 columns are not planes of 3 x 1"
    yield "context-rate-zero", one(rate=b"\x00"), "the learning rate is 0"
    yield "context-rate", one(rate=b"\x41"), "the learning rate is 65"
    yield "context-cut", one(stream=stream[:-1]), "do not match their checksum"
    yield "context-tail", one(stream=stream + b"\0"), "does not end where it must"
    four = b"\x04\x00" + struct.pack("<4f", 1, 2, 3, 4)
    yield (
        "context-range",
        one(book=b"\x05\x00" + struct.pack("<5f", *range(1, 6)), stream=b"\x00" * 4),
        "a level out of range",
    )
    yield "context-other-book", one(book=four), "do not match their checksum"


def _bad_numbers() -> Iterator[tuple[str, bytes, str]]:
    def one(
        width: int = 3, step: float = 0.5, low: bytes = b"\x05", data: bytes = b"\x29\x40"
    ) -> bytes:
        payload = bytes([width]) + struct.pack("<f", step) + low + data
        values = np.array([-1.5, -1, -0.5, 0], np.float32)  # 1, 2, 3, 4 from -2 on
        crcs = [zlib.crc32(payload), zlib.crc32((values + np.float32(1)).tobytes())]
        return file(directory(tensor(7, "w", 4, size=len(payload))), payload, crcs=crcs)

    yield "packed-width", one(width=25), "numbers of 25 bits"
    yield "packed-range", one(low=varint(2 << 24)), "numbers of 3 bits from 16777216 on"
    yield "packed-zero", one(low=b"\x01"), "written as -0"
    yield "packed-step", one(step=-1.0), "the step of a grid is -1.0"
    yield "packed-infinite", one(step=3e38), "leave the range of float32"
    yield "packed-padding", one(data=b"\x29\x41"), "padding of packed numbers"
    yield "packed-cut", one(data=b"\x29"), "the payload is truncated"
    yield "packed-tail", one(data=b"\x29\x40\x00"), "1 bytes too many"
    yield "packed-checksum", one(low=b"\x03"), "do not match their checksum"


def main() -> None:
    """Write every golden file."""
    for name, arguments in GOOD.items():
        arguments = {**arguments}
        blob = encode(arguments.pop("tensors"), **arguments)
        (HERE / "good" / f"{name}.dcz").write_bytes(blob)
    messages = {}
    for name, content, message in bad_files():
        (HERE / "bad" / f"{name}.dcz").write_bytes(content)
        messages[name] = message
    (HERE / "bad" / "messages.json").write_text(json.dumps(messages, indent=2) + "\n")


if __name__ == "__main__":
    main()
