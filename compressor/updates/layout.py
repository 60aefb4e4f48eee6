"""What a .dczd file begins with, and how it says what becomes of each tensor.

`docs/updates.md` is the specification; the names here are its names.
"""

import enum
import hashlib
import struct
import zlib
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from compressor.artifact import Limits
from compressor.artifact.layout import Directory, GraphRecord, TensorRecord, check_graph
from compressor.artifact.reader import Artifact
from compressor.coding.buffer import ByteReader, varint
from compressor.errors import ArtifactError

MAGIC = b"\x89DCD\r\n\x1a\n"
VERSION = 1
LIMITS = Limits()
"""What is accepted where the caller does not say."""
_DIGEST = 16
_HEADER = struct.Struct(f"<8sHH{_DIGEST}s{_DIGEST}s")  # magic, version, features, base, result
_CRC = struct.Struct("<I")


class Source(enum.IntEnum):
    """Where a part of the new file comes from."""

    BASE = 0
    GIVEN = 1
    NONE = 2


class Way(enum.IntEnum):
    """How a tensor's payload is made."""

    BASE = 0
    GIVEN = 1
    WORDS = 2
    LEVELS = 3


class Digests(NamedTuple):
    """Which file a patch is for, and which it makes."""

    base: bytes
    result: bytes


def digest(blob: bytes | memoryview) -> bytes:
    """The first half of a file's SHA-256."""
    return hashlib.sha256(blob).digest()[:_DIGEST]


def pack_file(digests: Digests, body: bytes) -> bytes:
    """Return a whole patch."""
    out = _HEADER.pack(MAGIC, VERSION, 0, *digests) + body
    return out + _CRC.pack(zlib.crc32(out))


def parse_file(blob: memoryview) -> tuple[Digests, ByteReader]:
    """Check a patch as a whole; return its digests, and its body to be read."""
    start = bytes(blob[: len(MAGIC)])
    if not start:
        raise ArtifactError("the patch is empty")
    if not MAGIC.startswith(start):
        raise ArtifactError(f"the file is not a .dczd patch: it starts with {start!r}")
    if len(blob) < _HEADER.size + _CRC.size:
        raise ArtifactError(f"the patch is truncated: it ends after {len(blob)} bytes")
    _, version, features, base, result = _HEADER.unpack(blob[: _HEADER.size])
    if version != VERSION or features:
        raise ArtifactError(
            f"the patch has format version {version} and features {features:#06x}; this release "
            f"reads version {VERSION} without any"
        )
    (crc,) = _CRC.unpack(blob[-_CRC.size :])
    if crc != zlib.crc32(blob[: -_CRC.size]):
        raise ArtifactError("the patch is damaged: its checksum does not match")
    return Digests(base, result), ByteReader(blob[_HEADER.size : -_CRC.size], "the patch")


def pack_directory(new: Artifact, old: Artifact) -> bytes:
    """Return the new directory, if it is not the base's."""
    own, theirs = new.preamble.directory, old.preamble.directory
    if (bytes(own.stored), own.deflated) == (bytes(theirs.stored), theirs.deflated):
        return bytes([Source.BASE])
    head = bytes([Source.GIVEN, own.deflated]) + varint(own.raw_bytes) + varint(len(own.stored))
    return head + bytes(own.stored)


def read_directory(reader: ByteReader, old: Artifact) -> Directory:
    """Return the new file's directory; it is not parsed."""
    if _source(reader, "the directory", Source.GIVEN) is Source.BASE:
        return old.preamble.directory
    deflated, raw = reader.byte(), reader.varint()
    if deflated > 1:
        raise ArtifactError(f"the patch says {deflated} of whether its directory is deflated")
    return Directory(reader.take(reader.varint()), raw, bool(deflated))


def pack_graph(new: Artifact, old: Artifact) -> bytes:
    """Return the new graph as it is stored, if it is not the base's."""
    stored, record = new.stored_graph, new.preamble.graph
    if stored is None or record is None:
        return bytes([Source.NONE])
    if stored == old.stored_graph and record == old.preamble.graph:
        return bytes([Source.BASE])
    return bytes([Source.GIVEN]) + varint(record.raw_bytes) + varint(len(stored)) + bytes(stored)


def read_graph(
    reader: ByteReader, old: Artifact, limits: Limits
) -> tuple[GraphRecord | None, memoryview]:
    """Return the new file's graph record and its stored graph."""
    source = _source(reader, "the graph", Source.NONE)
    if source is Source.NONE:
        return None, memoryview(b"")
    if source is Source.BASE:
        stored = old.stored_graph
        if stored is None:
            raise ArtifactError("the patch takes the base's graph, but it has none")
        return old.preamble.graph, stored
    raw = reader.varint()
    stored = reader.take(reader.varint())
    record = GraphRecord(raw, len(stored), zlib.crc32(stored))
    check_graph(record, limits)
    return record, stored


def pack_ways(ways: Sequence[Way]) -> bytes:
    """Return the way of each tensor, as runs of equal ones."""
    runs = ((way, len(list(run))) for way, run in groupby(ways))
    return b"".join(varint(4 * (length - 1) + way) for way, length in runs)


def read_ways(reader: ByteReader, tensors: Sequence[TensorRecord]) -> list[Way]:
    """Return the way of each of ``tensors``."""
    ways: list[Way] = []
    while len(ways) < len(tensors):
        run = reader.varint()
        if run >> 2 >= len(tensors) - len(ways):
            raise ArtifactError(f"the patch is for more than the {len(tensors)} tensors there are")
        ways += [Way(run & 3)] * ((run >> 2) + 1)
    return ways


def _source(reader: ByteReader, what: str, most: Source) -> Source:
    byte = reader.byte()
    if byte > most:
        raise ArtifactError(f"the patch takes {what} from {byte}; 0 to {most} are known")
    return Source(byte)
