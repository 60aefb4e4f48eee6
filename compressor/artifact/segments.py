"""Large tensors in segments: streams of their own, so that several can be decoded at once.

A tensor of more than 2^20 weights is cut after every 2^20. Segments have the tensor's codebook, its
tables and its classes in common; each has its own counts and its own streams, and its gaps begin
anew. A tensor of up to 2^20 weights is one segment, and nothing about it is written.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from compressor.coding.buffer import ByteReader, varint
from compressor.coding.checksums import joined
from compressor.coding.gaps import segments
from compressor.coding.streams_core import Target
from compressor.errors import ArtifactError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Segment:
    """Weights ``start`` to ``stop`` - 1: how many entries they have, and their streams."""

    start: int
    stop: int
    kept: int
    fillers: int
    body: memoryview


def pack_segments(bodies: Sequence[bytes], counts: Sequence[tuple[int, int]] | None) -> bytes:
    """Return the bodies, before them their lengths and, in modes with gaps, their ``counts``."""
    if len(bodies) == 1:
        return bodies[0]
    head = b""
    for at, body in enumerate(bodies):
        numbers = (len(body),) if counts is None else (*counts[at], len(body))
        head += b"".join(varint(number) for number in numbers)
    return b"".join([head, *bodies])


def read_segments(
    reader: ByteReader, shape: tuple[int, ...], counts: tuple[int, int] | None
) -> list[Segment]:
    """Read to the end; ``counts`` are the tensor's kept weights and fillers, in modes with gaps."""
    spans = segments(math.prod(shape))
    if len(spans) == 1:
        return [Segment(*spans[0], *(counts or (0, 0)), reader.take(reader.remaining))]
    heads = []
    for start, stop in spans:
        kept, fillers = (reader.varint(), reader.varint()) if counts else (0, 0)
        if kept + fillers > stop - start or (fillers and not kept):
            raise ArtifactError(
                f"{kept} weights and {fillers} fillers cannot be in a segment of {stop - start}"
            )
        heads.append((start, stop, kept, fillers, reader.varint()))
    found = [Segment(*head[:4], reader.take(head[4])) for head in heads]
    reader.finish()
    if counts:
        sums = sum(each.kept for each in found), sum(each.fillers for each in found)
        if sums != counts:
            raise ArtifactError(f"segments hold {sums} weights and fillers, not {counts}")
        if any(len(each.body) and not each.kept for each in found):
            raise ArtifactError("a segment without weights has a stream")
    return found


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], threads: int
) -> list[_Result]:
    """Return ``work`` of each item, by up to ``threads`` threads; it pays where work leaves Python.

    What is raised is that of the first item in order for which something is. Plain threads: to
    import an executor takes as long as to read a small network.
    """
    if threads < 2 or len(items) < 2:
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    errors: dict[int, BaseException] = {}
    waiting = iter(range(len(items)))  # a plain iterator: one thread at a time is in it

    def take() -> None:
        for at in waiting:
            try:
                results[at] = work(items[at])
            except BaseException as error:
                errors[at] = error

    others: list[Thread] = []
    for _ in range(min(threads, len(items)) - 1):
        thread = Thread(target=take)
        try:
            thread.start()
        except RuntimeError:  # no more are to be had; those that there are do all of it
            break
        others.append(thread)
    take()
    for thread in others:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return results


def fill_segments(
    parts: Sequence[Segment],
    target: Target,
    threads: int,
    work: Callable[[Segment, Target], bool],
) -> bool:
    """Let ``work`` fill each segment's part of ``target``; return whether it did all of them."""
    targets = [target.part(each.start, each.stop) for each in parts]
    done = in_threads(lambda pair: work(*pair), list(zip(parts, targets, strict=True)), threads)
    target.crc = joined((each.crc, each.n * each.index_bytes) for each in targets)
    return all(done)


def fill_zeros(target: Target) -> bool:
    """Fill the target of a segment without weights."""
    for array in (target.indices, target.floats):
        if array is not None:
            array[:] = 0
    target.crc = zlib.crc32(bytes(target.n * target.index_bytes))
    return True
