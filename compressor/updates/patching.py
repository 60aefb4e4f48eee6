"""A patch and the artifact that it was made for -> the next artifact, byte for byte.

What a patch says is checked against its own length and against the base before memory is taken or
work is done for it; and what comes out has the digest that the patch names, or is an error.
"""

import zlib

from compressor.artifact import Artifact, Limits, decode
from compressor.artifact.heads import read_head
from compressor.artifact.layout import TensorRecord, join_preamble, parse_directory
from compressor.artifact.reader import named
from compressor.coding.buffer import ByteReader
from compressor.errors import ArtifactError
from compressor.progress import Progress
from compressor.updates import layout
from compressor.updates.fronts import book_words, read_book, read_form, read_front
from compressor.updates.layout import LIMITS, Way
from compressor.updates.levels import decode_levels
from compressor.updates.words import Words, decode_words, words_of


def patch(
    old: bytes,
    update: bytes,
    *,
    names: tuple[str, str] = ("the base", "the patch"),
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> bytes:
    """Return the file that ``update`` makes of ``old``, both whole files. ``names`` are theirs.

    Raises:
        ArtifactError: the patch is damaged, or for another base; a file is over ``limits``.
    """
    with named(names[1]):
        digests, reader = layout.parse_file(memoryview(update))
    if layout.digest(old) != digests.base:
        raise ArtifactError(f"{names[1]} is not for {names[0]}: it was made for another file")
    base = decode(old, limits=limits, source=names[0])
    with named(names[1]):
        found = _applied(base, reader, limits, progress or Progress())
        if layout.digest(found) != digests.result:
            raise ArtifactError("the patch does not make the file that it says it makes")
    return found


def _applied(base: Artifact, reader: ByteReader, limits: Limits, progress: Progress) -> bytes:
    directory = layout.read_directory(reader, base)
    _, records = parse_directory(directory, limits)
    graph, stored_graph = layout.read_graph(reader, base, limits)
    ways = layout.read_ways(reader, records)
    tensors = [_Tensor(record, way, base) for record, way in zip(records, ways, strict=True)]
    for each in tensors:
        each.read_head(reader)
    coded = [each for each in tensors if each.words is not None]
    known = [each.words for each in coded if each.words is not None]
    for each, came in zip(coded, decode_words(reader.take(reader.varint()), known), strict=True):
        each.came = came
    payloads: list[bytes | memoryview] = []
    made: list[TensorRecord] = []
    with progress.task("patch", len(tensors)) as advance:
        for each in tensors:
            record = each.record
            with named(f"tensor {record.name!r}"):
                payload, crc = each.payload(reader)
                if len(payload) != record.payload_bytes:
                    raise ArtifactError(
                        f"it comes out in {len(payload)} bytes, not in {record.payload_bytes}"
                    )
            payloads.append(payload)
            made.append(record._replace(payload_crc=zlib.crc32(payload), decoded_crc=crc))
            advance(each.record.name)
    reader.finish()
    return b"".join([join_preamble(made, directory, graph), *payloads, stored_graph])


class _Tensor:
    """One tensor of the new file, of which the patch is read in two steps.

    ``words`` are the base of what is coded in words, if something is: a payload or a codebook.
    ``came`` is what is decoded of them.
    """

    def __init__(self, record: TensorRecord, way: Way, base: Artifact) -> None:
        self.record, self._way, self._base = record, way, base
        self.words: Words | None = None
        self.came = b""
        self._head = b""
        if way is Way.GIVEN:
            return
        if record.name not in base.names:
            raise ArtifactError(f"the base has no tensor {record.name!r}")
        self._theirs, self._payload = base.stored(record.name)
        if way is Way.LEVELS:
            fits = record.mode.shared and self._theirs.mode.shared
            fits = fits and record.shape == self._theirs.shape
        else:
            fits = record[1:5] == self._theirs[1:5]
            fits = fits and (way is Way.BASE or not record.mode.coded)
        if not fits:
            raise ArtifactError(f"tensor {record.name!r} of the base is of another kind")

    def read_head(self, reader: ByteReader) -> None:
        """Take the head of a shared tensor's payload, or what of it is not coded in words."""
        if self._way is Way.WORDS:
            self.words = words_of(self._theirs, self._payload)
        if self._way is not Way.LEVELS:
            return
        form = read_form(reader)
        self.words = book_words(form, self._payload)
        self._head = (
            form.prefix if self.words is not None else form.prefix + read_book(reader, form)
        )

    def payload(self, reader: ByteReader) -> tuple[bytes | memoryview, int | None]:
        """Return the payload, and the checksum of what it decodes to."""
        if self._way is Way.BASE:
            return self._payload, self._theirs.decoded_crc
        if self._way is Way.WORDS:
            return self.came, None
        if self._way is Way.LEVELS:
            return self._levels(reader)
        crc = None
        if self.record.mode.coded:
            crc = int.from_bytes(reader.take(4), "little")
        return reader.take(self.record.payload_bytes), crc

    def _levels(self, reader: ByteReader) -> tuple[bytes, int]:
        whole = self._head + self.came
        head = read_head(ByteReader(whole, "the head"), True)
        front = read_front(self.record, reader, head)
        lanes = bytes(reader.take(front.lanes))
        stream = reader.take(reader.varint())
        base = self._base.shared(self.record.name)
        if base is None:
            raise ArtifactError("the base has no indices")
        flat = decode_levels(stream, base, head.codebook)
        return b"".join([whole, front.rest, front.streams(flat, lanes)]), zlib.crc32(flat.data)
