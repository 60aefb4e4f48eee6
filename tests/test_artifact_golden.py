"""Golden files: exact bytes, exact tensors, and a second decoder written from docs/format.md alone.

The second decoder is slow, plain Python, and shares nothing with the package.
"""

import json
import math
import re
import runpy
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.artifact import Artifact, Shared, decode, encode, read
from compressor.errors import ArtifactError

GOLDEN = Path(__file__).parent / "golden"
FORMAT = Path(__file__).parents[1] / "docs" / "format.md"
GOOD: dict[str, dict[str, Any]] = runpy.run_path(str(GOLDEN / "make.py"))["GOOD"]
BAD: dict[str, str] = json.loads((GOLDEN / "bad" / "messages.json").read_text())
CONTEXT = runpy.run_path(str(GOLDEN / "second_context.py"))
DTYPES = ["f4", "f2", "f8", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


class Bytes:
    """A file being read, front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self) -> str:
        return self.take(self.varint()).decode()


class Bits:
    """A bit stream, most significant bits first."""

    def __init__(self, data: bytes) -> None:
        self.bits, self.at = "".join(f"{byte:08b}" for byte in data), 0

    def bit(self) -> str:
        self.at += 1
        return self.bits[self.at - 1]

    def gamma(self) -> int:
        zeros = 0
        while self.bit() == "0":
            zeros += 1
        return int("1" + "".join(self.bit() for _ in range(zeros)), 2)

    def symbol(self, code: dict[str, int]) -> int:
        word = ""
        while word not in code:
            word += self.bit()
        return code[word]


def second_table(source: Bytes) -> dict[str, int]:
    """Codewords to symbols."""
    v, kind = divmod(source.varint(), 4)
    if kind == 2:
        return {"": v}
    width = math.ceil(math.log2(v))
    lengths: dict[int, int] = {}
    if kind == 0:
        lengths = {s: width - (s < 2**width - v) for s in range(v)}
    else:
        bits, previous, symbol = Bits(source.data[source.at :]), width, 0
        while symbol < v:
            number = bits.gamma()
            if number == 4:
                symbol += bits.gamma()
                continue
            if number <= 3:
                previous += (0, 1, -1)[number - 1]
            else:
                previous += (number - 1) // 2 if number % 2 else -(number - 2) // 2
            lengths[symbol] = previous
            symbol += 1
        source.take(math.ceil(bits.at / 8))
    code, word, last = {}, -1, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        word = (word + 1) << (length - last)
        last = length
        code[f"{word:0{length}b}"] = symbol
    return code


def second_head(source: Bytes, shared: bool) -> tuple[Any, int, Any]:
    """The codebook, the gap width, and how floats are stored."""
    k = source.varint() if shared else 0
    form, width = divmod(source.take(1)[0], 16)
    if form == 2:
        m = source.varint()
        (step,) = np.frombuffer(source.take(4), "<f4")
        levels = [level for level in range(-m, k - m + 1) if level]
        return np.array([np.float32(level) * step for level in levels], "<f4"), width, None
    kind = np.dtype("<f2" if form else "<f4")
    return np.frombuffer(source.take(k * kind.itemsize), kind).astype(np.float32), width, kind


def second_context(payload: bytes, shape: list[int]) -> tuple[Any, Any]:
    """The (n,) symbols of a CONTEXT payload, and its codebook."""
    source = Bytes(payload)
    book, _, _ = second_head(source, True)
    h, w, z = source.varint(), source.varint(), source.take(1)[0]
    order = CONTEXT["order"](book.tolist())
    top = {False: max(order), True: -min(order)}
    levels = CONTEXT["levels"](source.data[source.at :], shape, h, w, z, top)
    return [order.index(level) for level in levels], book


def second_numbers(payload: bytes, n: int) -> list[Any]:
    """The (n,) values of a PACKED payload."""
    source = Bytes(payload)
    (b,) = source.take(1)
    (step,) = np.frombuffer(source.take(4), "<f4")
    folded = source.varint()
    low = -(folded // 2) if folded % 2 else folded // 2
    bits = Bits(source.take(math.ceil(n * b / 8)))
    assert source.at == len(payload)
    return [
        np.float32(low + int("0" + "".join(bits.bit() for _ in range(b)), 2)) * step
        for _ in range(n)
    ]


def second_segments(
    source: Bytes, n: int, counted: tuple[int, int] | None
) -> list[tuple[int, int, int, bytes]]:
    """Size, kept weights, fillers and streams of each segment; the rest of the payload."""
    sizes = [min(2**20, n - start) for start in range(0, n, 2**20)] or [0]
    if len(sizes) == 1:
        return [(n, *(counted or (0, 0)), source.data[source.at :])]
    heads = [
        [source.varint() for _ in range(3)] if counted else [0, 0, source.varint()] for _ in sizes
    ]
    found = [
        (size, head[0], head[1], source.take(head[2]))
        for size, head in zip(sizes, heads, strict=True)
    ]
    assert source.at == len(source.data)
    if counted:
        assert counted == (sum(head[0] for head in heads), sum(head[1] for head in heads))
    return found


def second_gaps(payload: bytes, n: int, shared: bool, rans: bool) -> tuple[Any, Any]:
    """The (n,) symbols of a GAP payload, and its codebook."""
    source = Bytes(payload)
    book, width, kind = second_head(source, shared)
    kept, fillers = source.varint(), source.varint()
    flat: list[Any] = [0] * n if shared else [np.float32(0)] * n
    if kept:
        both: list[int] = []
        gap_code: dict[str, int] = {}
        if rans:
            tables = [second_frequencies(source) for _ in range(2)]
        else:
            gap_code = second_table(source)
        value_code = second_table(source) if shared and not rans else {}
        start = 0
        for size, own_kept, own_fillers, data in second_segments(source, n, (kept, fillers)):
            entries, body, position = own_kept + own_fillers, Bytes(data), start - 1
            start += size
            if not own_kept:
                assert not own_fillers
                assert not data
                continue
            if rans:
                both = second_rans(body, tables, [0, 1] * entries)
            gap_bits = Bits(b"" if rans else body.take(body.varint()))
            rest = body.data[body.at :]
            value_bits, floats = Bits(rest), np.frombuffer(rest, kind if not shared else "u1")
            for entry in range(entries):
                gap = both[2 * entry] if rans else gap_bits.symbol(gap_code)
                assert gap < 2**width
                position += gap + 1
                assert position < start
                if rans:
                    flat[position] = both[2 * entry + 1]
                elif shared:
                    flat[position] = value_bits.symbol(value_code)
                else:
                    flat[position] = np.float32(floats[entry])
    return flat, book


def second_frequencies(source: Bytes) -> list[int]:
    """Frequencies of symbols 0, 1, ...; they sum to 2^14."""
    v, kind = divmod(source.varint(), 4)
    if kind == 2:
        return [0] * v + [1 << 14]
    if kind == 0:
        weights = [2**31] * v
    else:
        sizes = [1] * v
        if kind == 3:
            starts = [s for s in range(v) if s < 8 or s % 2 ** (s.bit_length() - 3) == 0]
            sizes = [b - a for a, b in zip(starts, [*starts[1:], v], strict=True)]
        bits = Bits(source.data[source.at :])
        s, j = (int(bits.bit() + bits.bit(), 2) for _ in range(2))
        level, weights, bucket = 16 << s, [], 0
        while bucket < len(sizes):
            number = 1 + ((bits.gamma() - 1) << j)
            number += int("0" + "".join(bits.bit() for _ in range(j)), 2)
            if number == 4:
                absent = bits.gamma()
                weights += [0] * sum(sizes[bucket : bucket + absent])
                bucket += absent
                continue
            if number <= 3:
                level += (0, 1, -1)[number - 1]
            else:
                level += (number - 1) // 2 if number % 2 else -(number - 2) // 2
            octave, part = divmod(level, 2**s)
            weights += [round(2 ** (31 - part / 2**s)) >> octave] * sizes[bucket]
            bucket += 1
        source.take(math.ceil(bits.at / 8))
    rest = (1 << 14) - sum(weight > 0 for weight in weights)
    found, total, last = [], 0, 0
    for weight in weights:
        total += weight
        edge = rest * total // sum(weights)
        found.append(edge - last + 1 if weight else 0)
        last = edge
    return found


def second_rans(source: Bytes, tables: list[list[int]], contexts: list[int]) -> list[int]:
    """The symbols of a rANS stream that goes on to the end, a lane after another."""
    lanes = 1 << source.take(1)[0]
    states = [source.u32() for _ in range(lanes)]
    slots = [[s for s, f in enumerate(table) for _ in range(f)] for table in tables]
    starts = [[sum(table[:s]) for s in range(len(table))] for table in tables]
    out = []
    for i, context in enumerate(contexts):
        state = states[i % lanes]
        slot = state % 2**14
        symbol = slots[context][slot]
        state = tables[context][symbol] * (state >> 14) + slot - starts[context][symbol]
        if state < 2**16:
            state = state << 16 | struct.unpack("<H", source.take(2))[0]
        states[i % lanes] = state
        out.append(symbol)
    assert states == [2**16] * lanes
    assert source.at == len(source.data)
    return out


def second_dense(payload: bytes, shape: list[int]) -> tuple[Any, Any]:
    """The (n,) symbols of a DENSE_RANS payload, and its codebook."""
    source = Bytes(payload)
    book, _, _ = second_head(source, True)
    sizes = [*[*shape, 1, 1][:2], math.prod(shape[2:])]
    head = source.varint()
    numbers = [(head >> shift) % 8 + 1 for shift in (0, 3, 6)]
    axes = [[0] * size for size in sizes]
    if head:
        code = second_table(source)
        bits = Bits(source.take(source.varint()))
        for axis, number in zip(axes, numbers, strict=True):
            if number > 1:
                axis[:] = [bits.symbol(code) for _ in axis]
            assert max(axis) == number - 1
    tables = [second_frequencies(source) for _ in range(sum(numbers) - 2)]
    contexts = [a + b + c for a in axes[0] for b in axes[1] for c in axes[2]]
    flat: list[int] = []
    for size, _, _, data in second_segments(source, len(contexts), None):
        flat += second_rans(Bytes(data), tables, contexts[len(flat) : len(flat) + size])
    return flat, book


def second_decoder(data: bytes) -> tuple[dict[str, Any], dict[str, str], bytes | None]:
    """Tensors, metadata and graph of a file."""
    source = Bytes(data)
    assert source.take(8) == b"\x89DCZ\r\n\x1a\n"
    version, features = struct.unpack("<HH", source.take(4))
    assert version == 0
    stored, raw, checksums = source.u32(), source.u32(), source.u32()
    graph_sizes = [source.u32() for _ in range(3)] if features & 2 else None
    directory = source.take(stored)
    if features & 1:
        directory = zlib.decompress(directory, -15)
    assert len(directory) == raw
    crcs = [source.u32() for _ in range(checksums)]
    assert zlib.crc32(data[: source.at]) == source.u32()
    lines = Bytes(directory)
    metadata = {lines.text(): lines.text() for _ in range(lines.varint())}
    tensors = {}
    for _ in range(lines.varint()):
        dtype, mode = divmod(lines.take(1)[0], 16)
        name = lines.text()
        shape = [lines.varint() for _ in range(lines.varint())]
        kind = np.dtype("<" + DTYPES[dtype])
        n = math.prod(shape)
        size = lines.varint() if mode >= 2 else n * (2 if mode == 1 else kind.itemsize)
        payload = source.take(size)
        assert zlib.crc32(payload) == crcs.pop(0)
        if mode < 2:
            tensor = np.frombuffer(payload, "<f2" if mode == 1 else kind).astype(kind)
        else:
            if mode == 5:
                flat, book = second_dense(payload, shape)
            elif mode == 7:
                flat, book = second_numbers(payload, n), []
            elif mode == 6:
                flat, book = second_context(payload, shape)
            else:
                flat, book = second_gaps(payload, n, mode in (2, 4), mode == 4)
            k = len(book)
            checked = (
                "<f4" if mode in (3, 7) else "<u1" if k < 256 else "<u2" if k < 65536 else "<u4"
            )
            assert zlib.crc32(np.array(flat, checked).tobytes()) == crcs.pop(0)
            tensor = np.array(
                [book[i - 1] if i else 0 for i in flat] if mode not in (3, 7) else flat, "<f4"
            )
        tensors[name] = tensor.reshape(shape)
    graph = None
    if graph_sizes:
        stored_graph = source.take(graph_sizes[1])
        assert zlib.crc32(stored_graph) == graph_sizes[2]
        graph = zlib.decompress(stored_graph, -15)
        assert len(graph) == graph_sizes[0]
    assert source.at == len(data)
    assert not crcs
    return tensors, metadata, graph


def everything(artifact: Artifact) -> None:
    artifact.tensors()
    assert artifact.graph is None or artifact.graph
    assert len(artifact.entries) == len(artifact.names)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        dense = tensor.dense() if isinstance(tensor, Shared) else tensor
        assert found[name].dtype == dense.dtype, name
        assert found[name].shape == dense.shape, name
        assert found[name].tobytes() == dense.tobytes(), name


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_decoded_by_both_decoders(name: str) -> None:
    blob = (GOLDEN / "good" / f"{name}.dcz").read_bytes()
    arguments = GOOD[name]
    artifact = decode(blob)
    tensors, metadata, graph = second_decoder(blob)
    assert_same(artifact.tensors(), arguments["tensors"])
    assert_same(tensors, arguments["tensors"])
    assert artifact.metadata == metadata == arguments.get("metadata", {})
    assert artifact.graph == graph == arguments.get("graph")


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_written_byte_for_byte(name: str) -> None:
    expected = (GOLDEN / "good" / f"{name}.dcz").read_bytes()
    arguments = dict(GOOD[name])
    blob = encode(arguments.pop("tensors"), **arguments)
    if blob != expected:  # two builds of zlib may deflate differently, and nothing else may
        assert zlib.ZLIB_RUNTIME_VERSION.endswith("ng"), "the bytes of the format have changed"
        pytest.skip("zlib-ng deflates the directory to other bytes")


def test_good_files_are_the_ones_defined() -> None:
    assert {path.stem for path in (GOLDEN / "good").iterdir()} == set(GOOD)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_for_the_reason_given(name: str) -> None:
    path = GOLDEN / "bad" / f"{name}.dcz"
    with pytest.raises(ArtifactError, match=re.escape(BAD[name])) as caught:
        everything(read(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_every_bad_file_has_its_message() -> None:
    assert {path.stem for path in (GOLDEN / "bad").glob("*.dcz")} == set(BAD)


def test_the_specifications_example_is_the_golden_one() -> None:
    block = re.search(r"```hex\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    assert block
    columns = [re.match(r"(?:[0-9a-f]{2} {1,2})+", line + " ") for line in block[1].splitlines()]
    data = b"".join(bytes.fromhex(column[0]) for column in columns if column)
    assert data == (GOLDEN / "good" / "example.dcz").read_bytes()


def test_the_second_example_is_the_golden_one() -> None:
    block = re.findall(r"```hex\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)[1]
    columns = [re.match(r"(?:[0-9a-f]{2} {1,2})+", line + " ") for line in block.splitlines()]
    data = b"".join(bytes.fromhex(column[0]) for column in columns if column)
    assert (GOLDEN / "good" / "rans-example.dcz").read_bytes().endswith(data)
    assert decode((GOLDEN / "good" / "rans-example.dcz").read_bytes()).entries[0].bytes == len(data)


def test_golden_files_hold_segments_of_every_mode_that_has_them() -> None:
    files = ("segments", "segments-huffman")
    entries = [entry for name in files for entry in read(GOLDEN / "good" / f"{name}.dcz").entries]
    assert {entry.mode.name for entry in entries if entry.elements > 2**20} == {
        *("GAP_SHARED", "GAP_FLOAT", "GAP_RANS", "DENSE_RANS")
    }


def test_golden_files_hold_every_mode_and_kind_of_rans() -> None:
    entries = read(GOLDEN / "good" / "rans.dcz").entries
    assert {entry.mode.name for entry in entries} >= {"GAP_RANS", "DENSE_RANS", "GAP_FLOAT", "FP16"}
