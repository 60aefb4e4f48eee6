"""Two artifacts to the patch that makes the second of the first."""

from typing import NamedTuple

from compressor.artifact import Artifact, Limits, decode
from compressor.artifact.layout import TensorRecord
from compressor.artifact.types import Shared
from compressor.coding.buffer import ByteReader, varint
from compressor.errors import ArtifactError
from compressor.progress import Progress
from compressor.updates import layout
from compressor.updates.fronts import book_words, read_form, take_apart
from compressor.updates.layout import LIMITS, Digests, Way
from compressor.updates.levels import encode_levels
from compressor.updates.patching import patch
from compressor.updates.words import Words, encode_words, words_of


class _Coded(NamedTuple):
    """A tensor as it stands in the patch: the head of its payload, and what comes after the words.

    ``words``, where there are any, are coded against ``base``.
    """

    way: Way
    head: bytes | memoryview = b""
    data: bytes = b""
    words: bytes | memoryview | None = None
    base: Words | None = None


def diff(
    old: bytes,
    new: bytes,
    *,
    names: tuple[str, str] = ("old", "new"),
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> bytes:
    """Return the patch of which :func:`patch` makes ``new``, byte for byte, out of ``old``.

    Each tensor that has a base of its name and shape is coded against it, where that is smaller
    than its payload; all others are taken as they are. ``names`` are what errors call the files.
    The patch is applied before it is returned: what it makes of ``old`` is ``new``.

    Raises:
        ArtifactError: one of the files is damaged or over ``limits``.
    """
    progress = progress or Progress()
    base = decode(old, limits=limits, source=names[0])
    result = decode(new, limits=limits, source=names[1])
    digests = Digests(layout.digest(old), layout.digest(new))
    known = {name: _checked(base, name) for name in base.names}
    for each in (base, result):
        each.graph  # noqa: B018  # checks it
    with progress.task("diff", len(result.names)) as advance:
        coded = []
        for name in result.names:
            coded.append(_coded(name, result, base, known))
            advance(name)
    given = [_given(*result.stored(name)) for name in result.names]
    bodies = [_body(each, result, base) for each in (coded, given)]
    found = layout.pack_file(digests, min(bodies, key=len))
    if patch(old, found, limits=limits) != new:
        raise ArtifactError(
            f"{names[1]} is not as this release writes a file; it cannot be patched to"
        )
    return found


def _body(coded: list[_Coded], result: Artifact, base: Artifact) -> bytes:
    words = [(each.words, each.base) for each in coded if each.words is not None and each.base]
    stream = encode_words([new for new, _ in words], [old for _, old in words])
    return b"".join(
        [
            layout.pack_directory(result, base),
            layout.pack_graph(result, base),
            layout.pack_ways([each.way for each in coded]),
            *(each.head for each in coded),
            varint(len(stream)) + stream,
            *(each.data for each in coded),
        ]
    )


def _checked(artifact: Artifact, name: str) -> Shared | None:
    """Indices and codebook of a tensor that has them; it is decoded, whatever it is."""
    found = artifact.shared(name)
    if found is None:
        artifact.tensor(name)
    return found


def _coded(name: str, result: Artifact, base: Artifact, known: dict[str, Shared | None]) -> _Coded:
    record, payload = result.stored(name)
    new, old = _checked(result, name), known.get(name)
    if name not in known:
        return _given(record, payload)
    theirs, before = base.stored(name)
    if record == theirs and payload == before:
        return _Coded(Way.BASE)
    if not record.mode.coded and record[1:5] == theirs[1:5]:
        return _Coded(Way.WORDS, words=payload, base=words_of(theirs, before))
    if old is not None and new is not None and record.shape == theirs.shape:
        found = _levels(record, payload, (old, before), new)
        if found is not None and len(found.head) + len(found.data) < len(payload):
            return found
    return _given(record, payload)


def _levels(
    record: TensorRecord, payload: memoryview, known: tuple[Shared, memoryview], new: Shared
) -> _Coded | None:
    """Code a shared tensor against its base; ``None`` where its payload would not come back."""
    old, before = known
    head, front, lanes = take_apart(record, payload)
    if b"".join([head, front.rest, front.streams(new.indices.reshape(-1), lanes)]) != payload:
        return None
    form = read_form(ByteReader(head, "the head"))
    base = book_words(form, before)
    stream = encode_levels(old, new)
    data = b"".join([front.rest, lanes, varint(len(stream)), stream])
    if base is None:
        return _Coded(Way.LEVELS, head, data)
    return _Coded(Way.LEVELS, form.prefix, data, head[len(form.prefix) :], base)


def _given(record: TensorRecord, payload: memoryview) -> _Coded:
    crc = b"" if record.decoded_crc is None else record.decoded_crc.to_bytes(4, "little")
    return _Coded(Way.GIVEN, data=crc + bytes(payload))
