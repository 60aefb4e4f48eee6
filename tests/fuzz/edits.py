"""What can be done to the parts of a file: directory, payloads, graph, header.

A file is taken apart, edited, and put together again with true checksums, or with those it had.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from compressor.artifact.layout import parse_preamble
from compressor.artifact.types import Limits
from compressor.coding.buffer import varint
from tests.fuzz.mutations import MUTATIONS
from tests.golden import building

_NUMBERS = (0, 1, 2, 3, 7, 8, 100, 255, 256, 4096, 65535, 65536, 1 << 20, 1 << 31, (1 << 64) - 1)


@dataclass
class Line:
    """A tensor: its line in the directory, its payload, and its checksums, the decoded one last.

    ``size`` is the declared length of a coded payload, ``None`` for the one it has.
    """

    code: int
    name: bytes
    shape: list[int]
    payload: bytes
    checksums: list[int]
    size: int | None = None

    def copy(self) -> "Line":
        """A tensor that can be edited by itself."""
        return replace(self, shape=[*self.shape], checksums=[*self.checksums])


@dataclass
class Parts:
    """A file taken apart; ``header`` overrides what `tests.golden.building.file` finds."""

    metadata: bytes
    lines: list[Line]
    graph: tuple[int, bytes] | None
    preamble_crc: int
    tensors: int | None = None
    header: dict[str, Any] = field(default_factory=dict)

    def edited(self) -> "Parts":
        """A copy to edit."""
        return replace(self, lines=[line.copy() for line in self.lines], header={})

    def directory(self) -> bytes:
        """The directory, as it is before it is deflated."""
        count = len(self.lines) if self.tensors is None else self.tensors
        return self.metadata + varint(count) + b"".join(map(_directory_line, self.lines))

    def sealed(self) -> bytes:
        """The file, with true checksums; of what decodes, with those that it had."""
        checksums = [
            crc for line in self.lines for crc in (zlib.crc32(line.payload), *line.checksums[1:])
        ]
        return self._file(checksums)

    def torn(self) -> bytes:
        """The file, with the checksums that it had."""
        blob = self._file([crc for line in self.lines for crc in line.checksums])
        end = len(blob) - sum(len(line.payload) for line in self.lines)
        end -= len(self.graph[1]) if self.graph else 0
        return blob[: end - 4] + struct.pack("<I", self.preamble_crc) + blob[end:]

    def _file(self, checksums: list[int]) -> bytes:
        header = {"crcs": checksums, **self.header}
        raw = header.pop("raw", None)
        raw = self.directory() if raw is None else raw
        payloads = [line.payload for line in self.lines]
        return building.file(raw, *payloads, graph=self.graph, **header)


def _directory_line(line: Line) -> bytes:
    size = len(line.payload) if line.size is None else line.size
    coded = line.code & 15 > 1
    return building.tensor(line.code, line.name, *line.shape, size=size if coded else None)


def taken_apart(blob: bytes) -> Parts:
    """The parts of a sound file."""
    preamble = parse_preamble(memoryview(blob), Limits())
    metadata = varint(len(preamble.metadata))
    metadata += b"".join(building.text(text) for item in preamble.metadata.items() for text in item)
    lines, at = [], preamble.size
    for tensor in preamble.tensors:
        payload = blob[at : at + tensor.payload_bytes]
        checksums = [tensor.payload_crc, tensor.decoded_crc]
        code = tensor.mode | tensor.dtype << 4
        lines.append(
            Line(
                code,
                tensor.name.encode(),
                list(tensor.shape),
                payload,
                [crc for crc in checksums if crc is not None],
            )
        )
        at += tensor.payload_bytes
    graph = (preamble.graph.raw_bytes, blob[at:]) if preamble.graph else None
    (crc,) = struct.unpack_from("<I", blob, preamble.size - 4)
    return Parts(metadata, lines, graph, crc)


Edit = Callable[[Random, Parts, bytes], None]


def _mutate(rng: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return rng.randbytes(3)
    out = bytearray(data)
    rng.choice(MUTATIONS)(rng, out, other)
    return bytes(out)


def damage_payload(rng: Random, parts: Parts, other: bytes) -> None:
    """Whatever can happen to bytes, to one payload; its declared length follows."""
    line = rng.choice(parts.lines)
    line.payload = _mutate(rng, line.payload, other)


def damage_directory(rng: Random, parts: Parts, other: bytes) -> None:
    """The same, to the directory."""
    parts.header["raw"] = _mutate(rng, parts.directory(), other)


def damage_graph(rng: Random, parts: Parts, other: bytes) -> None:
    """The same, to the deflated graph; or one where there is none, or another length."""
    size, stored = parts.graph or (5, b"\x03\x00")
    if rng.random() < 0.5:
        size = rng.choice(_NUMBERS) & 0xFFFFFFFF
    parts.graph = size, _mutate(rng, stored, other)


def repeat_tensor(rng: Random, parts: Parts, other: bytes) -> None:
    """The same tensor again, up to 40 times, under names of its own or not."""
    line = rng.choice(parts.lines)
    for copy in range(rng.choice((1, 1, 2, 40))):
        twin = line.copy()
        if rng.random() < 0.9:
            twin.name += b"%d" % copy
        parts.lines.insert(rng.randrange(len(parts.lines) + 1), twin)


def swap(rng: Random, parts: Parts, other: bytes) -> None:
    """Two tensors' payloads, names, shapes or codes, or those of one with what is far off."""
    one, two = rng.choice(parts.lines), rng.choice(parts.lines)
    what = rng.choice(("payload", "name", "shape", "code"))
    first, second = getattr(one, what), getattr(two, what)
    setattr(one, what, second)
    setattr(two, what, first)
    if one is two:
        parts.lines.remove(one)


def recode(rng: Random, parts: Parts, other: bytes) -> None:
    """Another mode, or another dtype."""
    line = rng.choice(parts.lines)
    line.code = line.code & 0xF0 | rng.randrange(10) if rng.random() < 0.8 else rng.randrange(256)
    while len(line.checksums) < 2:
        line.checksums.append(0)
    if line.code & 15 <= 1:
        del line.checksums[1]


def reshape(rng: Random, parts: Parts, other: bytes) -> None:
    """Another shape, of as many weights, of more, of none, or of more than memory has."""
    line = rng.choice(parts.lines)
    shape = line.shape
    how = rng.randrange(5)
    if how == 0:
        rng.shuffle(shape)
    elif how == 1:
        shape.insert(rng.randrange(len(shape) + 1), rng.choice(_NUMBERS))
    elif how == 2 and shape:
        shape[rng.randrange(len(shape))] = rng.choice(_NUMBERS)
    elif how == 3 and shape:
        at = rng.randrange(len(shape))
        shape[at] = max(0, shape[at] + rng.choice((-2, -1, 1, 2)))
    else:
        line.shape = [rng.choice((1, 1, 1, 2, 300)) for _ in range(rng.choice((1, 5, 31, 32, 33)))]


def lengthen(rng: Random, parts: Parts, other: bytes) -> None:
    """Another declared length of a payload."""
    line = rng.choice(parts.lines)
    line.size = rng.choice((*_NUMBERS, len(line.payload) + 1, max(0, len(line.payload) - 1)))


def rename(rng: Random, parts: Parts, other: bytes) -> None:
    """Another name, or text that is none; other metadata."""
    name = rng.choice((b"", b"w", b"\xff", "é".encode(), b"n" * 300, bytes(3)))
    if rng.random() < 0.7:
        rng.choice(parts.lines).name = name
    else:
        parts.metadata = varint(rng.choice((0, 1, 2, 2, 1025, 1 << 40))) + building.text(name) * 4


def recount(rng: Random, parts: Parts, other: bytes) -> None:
    """Other numbers in the header: version, features, lengths, counts."""
    how = rng.randrange(5)
    if how == 0:
        parts.header["version"] = rng.randrange(1 << 16)
    elif how == 1:
        parts.header["features"] = rng.randrange(1 << 16)
    elif how == 2:
        parts.header["declared"] = rng.choice(_NUMBERS) & 0xFFFFFFFF
    elif how == 3:
        parts.tensors = rng.choice(_NUMBERS)
    else:
        parts.header["crcs"] = [rng.randrange(1 << 32) for _ in range(rng.randrange(6))]


def deflate(rng: Random, parts: Parts, other: bytes) -> None:
    """A deflated directory, damaged or not, of the declared length or not."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    stored = squeeze.compress(parts.directory()) + squeeze.flush()
    parts.header["stored"] = _mutate(rng, stored, other) if rng.random() < 0.7 else stored
    if rng.random() < 0.3:
        parts.header["declared"] = rng.choice(_NUMBERS) & 0xFFFFFFFF


EDITS: tuple[Edit, ...] = (
    *(damage_directory, damage_graph, repeat_tensor, swap, recode, reshape),
    *(lengthen, rename, recount, deflate),
)
