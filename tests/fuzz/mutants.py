"""The mutant of a number, and what decoding it comes to.

A mutant follows from its number alone, so that whatever one does can be looked at again. Nine in
ten are damaged by accident, or by someone who does not know of checksums: an error, or exactly
what was written, are all that may come out. In every tenth the checksums are true, those of the
decoded weights taken as true, so that it reaches the decoders: whatever comes out must be what the
directory declares, within the limits.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from unittest import mock

from compressor.artifact import Artifact, Limits, decode
from compressor.artifact.types import DTYPES
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import SINGLE, Sound, artifacts, in_segments
from tests.fuzz.edits import EDITS, Parts, damage_payload, taken_apart
from tests.fuzz.mutations import MUTATIONS

SEALED = 10
"""Every so many mutants one has true checksums."""
_SEVERAL = 0.02  # mutants of files of many tensors, most of which are whole, and take time
LIMITS = {
    "c": Limits(1 << 19, 1 << 19, 100, 1 << 16),
    "numpy": Limits(1 << 12, 1 << 14, 100, 1 << 16),
}
"""What a backend decodes in well under a second, context mixing too."""


class Finding(Exception):
    """A mutant did what none may; the message says what."""


@dataclass(frozen=True)
class Mutant:
    """A damaged file, the sound one it comes from, and whether its checksums are true."""

    blob: bytes
    origin: Sound
    sealed: bool
    kind: str


@cache
def _parts() -> tuple[Parts, ...]:
    return tuple(taken_apart(file.blob) for file in artifacts())


def mutant(number: int) -> Mutant:
    """The mutant of a number."""
    files = artifacts()
    rng = Random(number)
    several = rng.random() < _SEVERAL
    at = rng.randrange(SINGLE, len(files)) if several else number // SEALED % SINGLE
    origin, other = files[at], rng.choice(files).blob
    sealed = number % SEALED == 0
    if not sealed and rng.random() < 0.9:
        mutation = MUTATIONS[number % len(MUTATIONS)]
        data = bytearray(origin.blob)
        mutation(rng, data, other)
        return Mutant(bytes(data), origin, False, mutation.__name__)
    parts = _parts()[at].edited()
    edit = damage_payload if sealed and rng.random() < 0.7 else rng.choice(EDITS)
    edit(rng, parts, other)
    blob = parts.sealed() if sealed else parts.torn()
    return Mutant(blob, origin, sealed, edit.__name__)


def outcome(found: Mutant, limits: Limits, thorough: bool = True) -> list[str]:
    """The families of errors that decoding all there is comes to; "decoded" for what comes out.

    ``thorough`` decodes what reached the decoders a second time, as indices, and describes it.

    Raises:
        Finding: wrong weights, or other than declared; not enough memory.
        Exception: whatever else a decoder raised that is not an `ArtifactError`.
    """
    with in_segments():
        if not found.sealed:
            return _decode_damaged(found, limits)
        with checksums_taken_as_true():
            return _decode_sealed(found, limits, thorough)


@contextlib.contextmanager
def checksums_taken_as_true() -> Iterator[None]:
    """Let whatever was decoded have the checksum that the file says."""
    with mock.patch("compressor.artifact.unpacking._check_crc"):
        yield


def _decode_damaged(found: Mutant, limits: Limits) -> list[str]:
    families: list[str] = []
    artifact = _open(found.blob, limits, families)
    if artifact is None:
        return families
    sound = {file.blob: file for file in artifacts()}.get(found.blob, found.origin)
    for name in artifact.names:
        with _counted(families):
            if artifact.tensor(name).tobytes() != sound.tensors.get(name):
                raise Finding(f"tensor {name!r} has wrong weights")
    with _counted(families):
        if artifact.graph != sound.graph:
            raise Finding("the graph is wrong")
    if len(artifact.names) != len(sound.tensors):
        raise Finding("tensors are missing")
    return families


def _decode_sealed(found: Mutant, limits: Limits, thorough: bool) -> list[str]:
    families: list[str] = []
    artifact = _open(found.blob, limits, families)
    if artifact is None:
        return families
    total = 0
    for name in artifact.names:
        record = artifact.stored(name)[0]
        with _counted(families):
            tensor = artifact.tensor(name)
            if tensor.shape != record.shape or tensor.dtype != DTYPES[record.dtype]:
                raise Finding(f"tensor {name!r} is not as declared")
            total += tensor.nbytes
            if thorough and record.mode.shared:
                shared = artifact.shared(name)
                if shared is None or shared.dense().tobytes() != tensor.tobytes():
                    raise Finding(f"tensor {name!r} differs from its indices")
    with _counted(families):
        graph = artifact.graph
        if graph is not None and len(graph) > limits.max_graph_bytes:
            raise Finding("the graph is larger than the limit")
    if thorough:
        with _counted(families):
            for entry in artifact.entries:
                if entry.parts.total != entry.bytes or not 0 <= entry.nonzero <= entry.elements:
                    raise Finding(f"tensor {entry.name!r} is counted wrongly")
    if total > limits.max_total_bytes:
        raise Finding(f"{total} bytes came out, over the limit")
    return families


def _open(blob: bytes, limits: Limits, families: list[str]) -> Artifact | None:
    with _counted(families):
        return decode(blob, limits=limits)
    return None


@contextlib.contextmanager
def _counted(families: list[str]) -> Iterator[None]:
    try:
        yield
        families.append("decoded")
    except ArtifactError as error:
        if "not enough memory" in str(error):
            raise Finding("there was not enough memory") from error
        families.append(family(str(error)))


_TEXTS = re.compile(r"b?'(?:[^'\\]|\\.)*'|b?\"[^\"]*\"")
_NUMBERS = re.compile(r"0x[0-9a-f]+|(?<![\w-])-?\d[\w.+^-]*|\b(?:nan|inf)\b")
_LISTS = re.compile(r"[(\[](?:#(?:, ?)?)+[)\]]")


def family(message: str) -> str:
    """A message without what differs from file to file."""
    _, _, rest = message.partition(": ")
    return _LISTS.sub("#", _NUMBERS.sub("#", _TEXTS.sub("#", rest)))
