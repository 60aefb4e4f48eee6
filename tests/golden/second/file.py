"""The file: preamble, directory, checksums, payloads, graph."""

import zlib
from math import prod
from typing import NamedTuple

from tests.golden.second.payload import FP16, PACKED, RAW, decoded
from tests.golden.second.reading import Bytes, Refused, require

MAGIC = b"\x89DCZ\r\n\x1a\n"
VERSION = 1
DTYPES = ("f4", "f2", "f8", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
"""Element types: kind, and bytes of an element."""
MOST = 1 << 32


class Tensor(NamedTuple):
    """A tensor: dtype as in `DTYPES`, shape, elements in row-major order, little-endian."""

    dtype: str
    shape: list[int]
    data: bytes


class Line(NamedTuple):
    """A tensor's line in the directory."""

    mode: int
    dtype: int
    name: str
    shape: list[int]
    size: int


def decode(data: bytes, most: int = MOST) -> tuple[dict[str, Tensor], dict[str, str], bytes | None]:
    """Tensors, metadata and graph of a file.

    ``most`` is the caller's limit, in bytes: of each tensor, of all together, of the graph.

    Raises:
        Refused: the document forbids the file, or it is over the limit.
    """
    source = Bytes(data)
    require(source.take(8) == MAGIC, "another magic")
    version, features = source.u16(), source.u16()
    require(version == VERSION, "another version")
    require(features < 4, "an unknown feature")
    stored, raw, count = source.u32(), source.u32(), source.u32()
    graph = [source.u32() for _ in range(3)] if features & 2 else None
    directory = source.take(stored)
    checksums = Bytes(source.take(4 * count))
    crc = zlib.crc32(data[: source.at])
    require(source.u32() == crc, "a checksum that does not match")
    require(raw <= 4 << 20, "a directory over 4 MiB")
    if features & 1:
        directory = inflated(directory, raw)
    require(len(directory) == raw, "a directory of another length than declared")
    metadata, lines = read_directory(Bytes(directory), most)
    tensors = {}
    for line in lines:
        payload = source.take(line.size)
        require(zlib.crc32(payload) == checksums.u32(), "a checksum that does not match")
        elements, checked = decoded(line.mode, line.dtype, line.shape, payload)
        if line.mode not in (RAW, FP16):
            require(zlib.crc32(checked) == checksums.u32(), "a checksum that does not match")
        tensors[line.name] = Tensor(DTYPES[line.dtype], line.shape, elements)
    checksums.end()
    network = None
    if graph:
        require(graph[0] <= most, "a graph over the caller's limit")
        part = source.take(graph[1])
        require(zlib.crc32(part) == graph[2], "a checksum that does not match")
        network = inflated(part, graph[0])
    source.end()
    return tensors, metadata, network


def inflated(data: bytes, size: int) -> bytes:
    """What a raw deflate stream holds; nothing beyond one byte too many is inflated."""
    stream = zlib.decompressobj(-15)
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error:
        raise Refused("not a deflate stream") from None
    require(len(found) == size, "fewer or more bytes than declared")
    require(stream.eof, "a deflate stream without an end")
    require(not stream.unused_data, "bytes after a deflate stream")
    return found


def read_directory(source: Bytes, most: int) -> tuple[dict[str, str], list[Line]]:
    """Metadata and lines of a directory."""
    metadata: dict[str, str] = {}
    count = source.varint()
    require(count <= 1024, "over 1,024 metadata texts")
    for _ in range(count):
        key, value = source.text(), source.text()
        require(key not in metadata, "two metadata texts of one name")
        metadata[key] = value
    lines: dict[str, Line] = {}
    total = 0
    for _ in range(source.varint()):
        line = read_line(source, most)
        require(line.name not in lines, "two tensors of one name")
        lines[line.name] = line
        total += prod(line.shape) * _itemsize(line.dtype)
        require(total <= most, "tensors over the caller's limit")
    source.end()
    return metadata, list(lines.values())


def read_line(source: Bytes, most: int) -> Line:
    """One tensor's line."""
    dtype, mode = divmod(source.u8(), 16)
    name = source.text()
    require(mode <= PACKED, "an unknown mode")
    require(dtype < len(DTYPES), "an unknown dtype")
    require(mode == RAW or not dtype, "a mode that is for float32 alone")
    rank = source.varint()
    require(rank <= 32, "over 32 dimensions")
    shape = [source.varint() for _ in range(rank)]
    n, itemsize = prod(shape), _itemsize(dtype)
    require(prod(max(size, 1) for size in shape) * itemsize <= most, "over the caller's limit")
    if mode in (RAW, FP16):
        return Line(mode, dtype, name, shape, n * (2 if mode == FP16 else itemsize))
    size = source.varint()
    require(size <= n * itemsize, "a coded payload longer than the RAW one")
    return Line(mode, dtype, name, shape, size)


def _itemsize(dtype: int) -> int:
    return int(DTYPES[dtype][1:])
