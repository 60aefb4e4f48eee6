"""The preamble of a .dcz file: header, directory and checksums, both ways.

`docs/format.md` is the specification; the names here are its names.
"""

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compressor.artifact.types import DTYPES, Limits, Mode
from compressor.coding.buffer import ByteReader, varint
from compressor.errors import ArtifactError

MAGIC = b"\x89DCZ\r\n\x1a\n"
VERSION = 1
DEFLATED, HAS_GRAPH = 1, 2
MAX_DIRECTORY = 1 << 22
MAX_METADATA = 1 << 10
MAX_GRAPH = (1 << 32) - 1
MAX_DIMENSIONS = 32

_HEADER = struct.Struct("<8sHHIII")  # magic, version, features, stored, raw, checksums
_GRAPH = struct.Struct("<III")  # raw, stored, CRC-32
_CRC = struct.Struct("<I")


class TensorRecord(NamedTuple):
    """One tensor's line in the directory; ``decoded_crc`` is ``None`` where the mode has none."""

    name: str
    mode: Mode
    dtype: int
    shape: tuple[int, ...]
    payload_bytes: int
    payload_crc: int
    decoded_crc: int | None

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class GraphRecord(NamedTuple):
    """The graph section: its length inflated and in the file, and its CRC-32 in the file."""

    raw_bytes: int
    stored_bytes: int
    crc: int

    @property
    def total_bytes(self) -> int:
        """The section and its record."""
        return self.stored_bytes + _GRAPH.size


class Directory(NamedTuple):
    """A directory as it stands in the file, and its length inflated."""

    stored: bytes | memoryview
    raw_bytes: int
    deflated: bool


class Preamble(NamedTuple):
    """All that stands before the first payload; ``size`` is its length in bytes."""

    tensors: tuple[TensorRecord, ...]
    metadata: dict[str, str]
    graph: GraphRecord | None
    size: int
    directory: Directory


def deflate(data: bytes) -> bytes:
    """Return ``data`` as a raw deflate stream (RFC 1951)."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return squeeze.compress(data) + squeeze.flush()


def inflate(data: memoryview, size: int, what: str) -> bytes:
    """Return the ``size`` bytes that the raw deflate stream ``data`` holds, and no byte more."""
    stream = zlib.decompressobj(-15)
    try:
        out = stream.decompress(data, size + 1)
    except zlib.error:
        raise ArtifactError(f"{what} is not a valid deflate stream") from None
    if len(out) != size or not stream.eof or stream.unused_data:
        raise ArtifactError(f"{what} does not inflate to the {size} bytes it declares")
    return out


def payload_cost(mode: Mode, payload_bytes: int) -> int:
    """Return what a payload adds to the file, its own bytes and those that its mode brings."""
    return payload_bytes + (_CRC.size + len(varint(payload_bytes)) if mode.coded else 0)


def fixed_payload(mode: Mode, dtype: int, elements: int) -> int:
    """Return the length of a RAW or FP16 payload."""
    return elements * (2 if mode is Mode.FP16 else DTYPES[dtype].itemsize)


def pack_preamble(
    tensors: Sequence[TensorRecord], metadata: Mapping[str, str], graph: GraphRecord | None
) -> bytes:
    """Return header, graph record, directory, checksums and their CRC-32."""
    raw = _pack_directory(tensors, metadata)
    if len(raw) > MAX_DIRECTORY or len(metadata) > MAX_METADATA:
        raise ArtifactError(
            f"names, shapes and {len(metadata)} metadata texts take {len(raw)} bytes; an artifact "
            f"holds {MAX_METADATA} texts and {MAX_DIRECTORY} bytes of all three"
        )
    if graph and graph.raw_bytes > MAX_GRAPH:
        raise ArtifactError(f"the graph has {graph.raw_bytes} bytes; an artifact holds {MAX_GRAPH}")
    squeezed = deflate(raw)
    deflated = len(squeezed) < len(raw)
    return join_preamble(
        tensors, Directory(squeezed if deflated else raw, len(raw), deflated), graph
    )


def join_preamble(
    tensors: Sequence[TensorRecord], directory: Directory, graph: GraphRecord | None
) -> bytes:
    """Return the preamble with a directory that is there already; ``tensors`` have checksums."""
    checksums = [crc for t in tensors for crc in (t.payload_crc, t.decoded_crc) if crc is not None]
    features = (DEFLATED if directory.deflated else 0) | (HAS_GRAPH if graph else 0)
    sizes = len(directory.stored), directory.raw_bytes, len(checksums)
    out = _HEADER.pack(MAGIC, VERSION, features, *sizes)
    if graph:
        out += _GRAPH.pack(graph.raw_bytes, graph.stored_bytes, graph.crc)
    out += bytes(directory.stored) + struct.pack(f"<{len(checksums)}I", *checksums)
    return out + _CRC.pack(zlib.crc32(out))


def _pack_directory(tensors: Sequence[TensorRecord], metadata: Mapping[str, str]) -> bytes:
    out = [varint(len(metadata))]
    for item in metadata.items():
        out += (_pack_text(text, "metadata") for text in item)
    out.append(varint(len(tensors)))
    for tensor in tensors:
        out += bytes([tensor.mode | tensor.dtype << 4]), _pack_text(tensor.name, "a tensor's name")
        out += varint(len(tensor.shape)), *map(varint, tensor.shape)
        if tensor.mode.coded:
            out.append(varint(tensor.payload_bytes))
    return b"".join(out)


def _pack_text(text: str, what: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ArtifactError(f"{what}, {text!r}, cannot be written as UTF-8") from None
    return varint(len(data)) + data


def parse_preamble(blob: memoryview, limits: Limits) -> Preamble:
    """Check and return the preamble of ``blob``, a whole file; payloads are not looked at."""
    _check_magic(blob)
    reader = ByteReader(blob, "the file")
    _, version, features, stored, raw, checksum_count = _HEADER.unpack(reader.take(_HEADER.size))
    if version != VERSION:
        raise ArtifactError(f"the file has format version {version}; this release reads {VERSION}")
    if features & ~(DEFLATED | HAS_GRAPH):
        raise ArtifactError(
            f"the file uses unknown features {features:#06x}; a newer release can read it"
        )
    has_graph = bool(features & HAS_GRAPH)
    graph = GraphRecord(*_GRAPH.unpack(reader.take(_GRAPH.size))) if has_graph else None
    directory = Directory(reader.take(stored), raw, bool(features & DEFLATED))
    checksums = reader.take(4 * checksum_count)
    (crc,) = _CRC.unpack(reader.take(_CRC.size))
    if crc != zlib.crc32(blob[: reader.position - _CRC.size]):
        raise ArtifactError("the header or directory is damaged: its checksum does not match")
    crcs = ByteReader(checksums, "the checksum list")
    metadata, tensors = parse_directory(directory, limits, crcs)
    crcs.finish()
    check_graph(graph, limits)
    return Preamble(tensors, metadata, graph, reader.position, directory)


def check_graph(graph: GraphRecord | None, limits: Limits) -> None:
    """Raise where the graph is larger than the caller allows."""
    if graph and graph.raw_bytes > limits.max_graph_bytes:
        raise ArtifactError(
            f"the graph declares {graph.raw_bytes} bytes; the limit is {limits.max_graph_bytes}"
        )


def _check_magic(blob: memoryview) -> None:
    start = bytes(blob[: len(MAGIC)])
    if start == MAGIC:
        return
    if not start:
        raise ArtifactError("the file is empty")
    if MAGIC.startswith(start):
        raise ArtifactError(f"the file is truncated: it ends after {len(start)} bytes")
    if start[:4] == MAGIC[:4]:
        raise ArtifactError(
            "the file was altered in transfer as if it were text: copy it as binary"
        )
    raise ArtifactError(f"the file is not a .dcz artifact: it starts with {start!r}")


def parse_directory(
    directory: Directory, limits: Limits, crcs: ByteReader | None = None
) -> tuple[dict[str, str], tuple[TensorRecord, ...]]:
    """Return metadata and tensors; without ``crcs`` to read them from, their checksums are 0."""
    data, raw = memoryview(directory.stored), directory.raw_bytes
    if raw > MAX_DIRECTORY:
        raise ArtifactError(f"the directory declares {raw} bytes; {MAX_DIRECTORY} are the most")
    if directory.deflated:
        data = memoryview(inflate(data, raw, "the directory"))
    elif raw != len(data):
        raise ArtifactError(f"the directory has {len(data)} bytes but declares {raw}")
    reader = ByteReader(data, "the directory")
    metadata: dict[str, str] = {}
    if (count := reader.varint()) > MAX_METADATA:
        raise ArtifactError(f"the metadata has {count} texts; {MAX_METADATA} are the most")
    for _ in range(count):
        key, value = _parse_text(reader), _parse_text(reader)
        if key in metadata:
            raise ArtifactError(f"the metadata has {key!r} twice")
        metadata[key] = value
    if (count := reader.varint()) > limits.max_tensors:
        raise ArtifactError(f"the file declares {count} tensors; the limit is {limits.max_tensors}")
    tensors: dict[str, TensorRecord] = {}
    total = 0
    for _ in range(count):
        tensor = _parse_tensor(reader, crcs, limits)
        if tensor.name in tensors:
            raise ArtifactError(f"the directory has tensor {tensor.name!r} twice")
        tensors[tensor.name] = tensor
        total += fixed_payload(Mode.RAW, tensor.dtype, tensor.elements)
        if total > limits.max_total_bytes:
            raise ArtifactError(
                f"the tensors take over {limits.max_total_bytes} bytes, the limit; "
                "raise max_total_bytes if the file can be trusted"
            )
    reader.finish()
    return metadata, tuple(tensors.values())


def _parse_tensor(reader: ByteReader, crcs: ByteReader | None, limits: Limits) -> TensorRecord:
    code = reader.byte()
    name = _parse_text(reader)
    mode, dtype = _parse_code(code, name)
    rank = reader.varint()
    if rank > MAX_DIMENSIONS:
        raise ArtifactError(f"tensor {name!r} has {rank} dimensions; {MAX_DIMENSIONS} are the most")
    shape = tuple(reader.varint() for _ in range(rank))
    # Zeros count as one, so that NumPy can hold the shape of every empty tensor too.
    dense = DTYPES[dtype].itemsize * math.prod(max(size, 1) for size in shape)
    if dense > limits.max_tensor_bytes:
        raise ArtifactError(
            f"tensor {name!r} of shape {shape} takes {dense} bytes; the limit is "
            f"{limits.max_tensor_bytes}; raise max_tensor_bytes if the file can be trusted"
        )
    raw = fixed_payload(Mode.RAW, dtype, math.prod(shape))
    size = reader.varint() if mode.coded else fixed_payload(mode, dtype, math.prod(shape))
    if size > raw:
        raise ArtifactError(f"tensor {name!r} is coded in {size} bytes; it takes {raw} uncoded")
    payload_crc = _parse_crc(crcs)
    decoded_crc = _parse_crc(crcs) if mode.coded else None
    return TensorRecord(name, mode, dtype, shape, size, payload_crc, decoded_crc)


def _parse_crc(crcs: ByteReader | None) -> int:
    return 0 if crcs is None else int(_CRC.unpack(crcs.take(_CRC.size))[0])


def _parse_code(code: int, name: str) -> tuple[Mode, int]:
    mode, dtype = code & 15, code >> 4
    if mode >= len(Mode):
        raise ArtifactError(f"tensor {name!r} has mode {mode}; 0 to {len(Mode) - 1} are known")
    if dtype >= len(DTYPES):
        raise ArtifactError(f"tensor {name!r} has dtype {dtype}; 0 to {len(DTYPES) - 1} are known")
    if mode != Mode.RAW and dtype != 0:
        raise ArtifactError(f"tensor {name!r}: mode {Mode(mode).name} is for float32 alone")
    return Mode(mode), dtype


def _parse_text(reader: ByteReader) -> str:
    data = reader.take(reader.varint())
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise ArtifactError("the directory holds a text that is not UTF-8") from None
