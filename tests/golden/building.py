"""Files put together byte by byte, true or not: what no encoder would write."""

import struct
import zlib

from compressor.artifact.layout import MAGIC, VERSION
from compressor.coding.buffer import varint


def text(value: str | bytes) -> bytes:
    """A text of the format."""
    data = value.encode() if isinstance(value, str) else value
    return varint(len(data)) + data


def tensor(code: int, name: str | bytes, *shape: int, size: int | None = None) -> bytes:
    """A tensor's line in the directory."""
    tail = b"" if size is None else varint(size)
    return bytes([code]) + text(name) + varint(len(shape)) + b"".join(map(varint, shape)) + tail


def directory(*tensors: bytes, metadata: bytes = b"\x00") -> bytes:
    """A directory."""
    return metadata + varint(len(tensors)) + b"".join(tensors)


def file(
    raw: bytes,
    *payloads: bytes,
    crcs: list[int] | None = None,
    graph: tuple[int, bytes] | None = None,
    stored: bytes | None = None,
    declared: int | None = None,
    version: int = VERSION,
    features: int = 0,
) -> bytes:
    """A whole file with true checksums, but for what is given."""
    crcs = [zlib.crc32(payload) for payload in payloads] if crcs is None else crcs
    features |= (1 if stored is not None else 0) | (2 if graph else 0)
    kept = raw if stored is None else stored
    size = len(raw) if declared is None else declared
    out = MAGIC + struct.pack("<HHIII", version, features, len(kept), size, len(crcs))
    if graph:
        out += struct.pack("<III", graph[0], len(graph[1]), zlib.crc32(graph[1]))
    out += kept + struct.pack(f"<{len(crcs)}I", *crcs)
    out += struct.pack("<I", zlib.crc32(out)) + b"".join(payloads)
    return out + (graph[1] if graph else b"")
