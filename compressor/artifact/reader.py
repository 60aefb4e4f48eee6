"""A .dcz file to tensors: checked at once, decoded one by one as they are asked for."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compressor.artifact.layout import Preamble, TensorRecord, inflate, parse_preamble
from compressor.artifact.segments import in_threads
from compressor.artifact.types import DTYPES, Entry, Limits, Mode, Shared
from compressor.artifact.unpacking import describe, unpack_shared, unpack_tensor
from compressor.coding.checksums import joined
from compressor.errors import ArtifactError

_NO_LIMITS = Limits()
_PART = 1 << 20
"""Bytes that a thread checks at once."""


def decode(
    blob: bytes | memoryview,
    *,
    limits: Limits = _NO_LIMITS,
    source: str = "artifact",
    threads: int | None = None,
) -> "Artifact":
    """Return the artifact in ``blob``, its header and directory checked, no tensor decoded yet.

    Args:
        limits: what is accepted; a file that declares more is refused before memory is taken.
        source: what the messages call the file.
        threads: how many may decode at once; by default the CPUs that this process may use.

    Raises:
        ArtifactError: damaged, hostile, over the limits, or of another version.
    """
    data = memoryview(blob).cast("B")
    with named(source):
        preamble = parse_preamble(data, limits)
        stored = sum(tensor.payload_bytes for tensor in preamble.tensors)
        expected = preamble.size + stored + (preamble.graph.stored_bytes if preamble.graph else 0)
        if len(data) < expected:
            raise ArtifactError(f"the file is truncated: {len(data)} of {expected} bytes are there")
        if len(data) > expected:
            raise ArtifactError(f"the file has {len(data) - expected} bytes too many at its end")
    return Artifact(data, preamble, source, threads or _usable_cpus())


def read(
    path: str | Path, *, limits: Limits = _NO_LIMITS, threads: int | None = None
) -> "Artifact":
    """Return the artifact in the file at ``path``, as `decode` does; `OSError` passes through."""
    return decode(Path(path).read_bytes(), limits=limits, source=str(path), threads=threads)


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Artifact:
    """An artifact in memory; made by `decode` and `read`."""

    def __init__(self, data: memoryview, preamble: Preamble, source: str, threads: int = 1) -> None:
        self._threads = threads
        self._preamble = preamble
        self._source = source
        self._data = data
        self._places: dict[str, tuple[TensorRecord, slice]] = {}
        start = preamble.size
        for record in preamble.tensors:
            self._places[record.name] = record, slice(start, start + record.payload_bytes)
            start += record.payload_bytes
        self._graph_start = start

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in the order in which they were written."""
        return tuple(self._places)

    @property
    def metadata(self) -> dict[str, str]:
        """The texts that the writer added."""
        return dict(self._preamble.metadata)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._data)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all tensors, dense."""
        records = self._preamble.tensors
        return sum(record.elements * DTYPES[record.dtype].itemsize for record in records)

    @property
    def overhead(self) -> int:
        """Bytes of header, directory, metadata and checksums: all but payloads and graph."""
        return self._preamble.size

    @property
    def size_without_graph(self) -> int:
        """Bytes that the same file has when it is written without its graph; exact."""
        graph = self._preamble.graph
        return self.size - (graph.total_bytes if graph else 0)

    @cached_property
    def graph(self) -> bytes | None:
        """The graph section, or ``None``."""
        record = self._preamble.graph
        if record is None:
            return None
        stored = self._data[self._graph_start :]
        with named(self._source, "graph"):
            _check(stored, record.crc)
            return inflate(stored, record.raw_bytes, "it")

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """What there is to know of each tensor; weights are not decoded for it."""
        return tuple(self._entry(name) for name in self.names)

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """Return a tensor, dense, with the dtype and shape that were written."""
        record, payload = self.stored(name)
        with named(self._source, f"tensor {name!r}"):
            _check(payload, record.payload_crc, self._threads)
            return unpack_tensor(record, payload, self._threads)

    def shared(self, name: str) -> Shared | None:
        """Return indices and codebook of a tensor, ``None`` where it is stored as weights."""
        record, payload = self.stored(name)
        if not record.mode.shared:
            return None
        with named(self._source, f"tensor {name!r}"):
            _check(payload, record.payload_crc, self._threads)
            return unpack_shared(record, payload, self._threads)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return all tensors, dense."""
        # Tensors of one long stream each are decoded side by side; the others are quick, or are
        # decoded in segments by several threads as it is.
        slow = [name for name in self.names if self._places[name][0].mode is Mode.CONTEXT]
        slow.sort(key=lambda name: self._places[name][0].elements, reverse=True)
        found = dict(zip(slow, in_threads(self.tensor, slow, self._threads), strict=True))
        return {name: found[name] if name in found else self.tensor(name) for name in self.names}

    def _entry(self, name: str) -> Entry:
        record, payload = self.stored(name)
        with named(self._source, f"tensor {name!r}"):
            _check(payload, record.payload_crc)
            return describe(record, payload)

    @property
    def preamble(self) -> Preamble:
        """What stands before the payloads, as it was read."""
        return self._preamble

    @property
    def stored_graph(self) -> memoryview | None:
        """The graph section as it is in the file, deflated."""
        return None if self._preamble.graph is None else self._data[self._graph_start :]

    def stored(self, name: str) -> tuple[TensorRecord, memoryview]:
        """Return a tensor's line in the directory, and its payload, which is not checked."""
        if name not in self._places:
            some = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
            raise ArtifactError(f"{self._source}: there is no tensor {name!r}; there are {some}")
        record, place = self._places[name]
        return record, self._data[place]


def _check(data: memoryview, crc: int, threads: int = 1) -> None:
    parts = [data[start : start + _PART] for start in range(0, len(data), _PART)]
    crcs = in_threads(zlib.crc32, parts, threads)
    if joined((each, len(part)) for each, part in zip(crcs, parts, strict=True)) != crc:
        raise ArtifactError("the data is damaged: its checksum does not match")


@contextmanager
def named(source: str, part: str = "") -> Iterator[None]:
    """Say in every error which file and part it is about; running out of memory is one too."""
    where = f"{source}: {part}: " if part else f"{source}: "
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(f"{where}{error}") from None
    except MemoryError:
        raise ArtifactError(f"{where}there is not enough memory to decode it") from None
