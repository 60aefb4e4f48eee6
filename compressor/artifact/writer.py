"""A mapping of tensors to the bytes of a .dcz file."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact.layout import (
    MAX_DIMENSIONS,
    GraphRecord,
    TensorRecord,
    deflate,
    pack_preamble,
)
from compressor.artifact.packing import pack_tensor
from compressor.artifact.types import DTYPES, PROFILES, Profile, Shared
from compressor.errors import ArtifactError


def encode(
    tensors: Mapping[str, npt.NDArray[Any] | Shared],
    *,
    graph: bytes | None = None,
    metadata: Mapping[str, str] | None = None,
    profile: Profile = "huffman",
    progress: Callable[[str, int, int], None] | None = None,
) -> bytes:
    """Return a .dcz file that decodes to ``tensors`` bit for bit, in their order.

    Each tensor is written in the smallest mode there is for it. They are taken from the mapping
    one by one, and none is held after its turn, so a mapping may load them as it is asked.

    Args:
        tensors: arrays of float32, float16, float64, integers or bool, and `Shared` tensors; none
            may change before this returns.
        graph: the network without its weights, kept as it is (deflated).
        metadata: a few short texts.
        profile: ``best`` for the smallest of all modes; ``fast`` for those that decode at memory
            speed, without context mixing, and for gaps in tensors of over 2^20 weights where these
            take up to 1 % more; ``huffman`` for the paper's storage, Huffman codes
            alone; ``flat`` for symbols of fixed width (no entropy coding).
        progress: called after each tensor with its name, the tensors done, and all tensors.

    Raises:
        ArtifactError: a tensor of a type that the format does not have; a directory over 4 MiB.
    """
    if profile not in PROFILES:
        raise ArtifactError(f"profile {profile!r} is unknown; there are {', '.join(PROFILES)}")
    records: list[TensorRecord] = []
    payloads: list[bytes | memoryview] = []
    for name in tensors:
        record, data = _pack(name, tensors[name], profile)
        records.append(record)
        payloads.append(data)
        if progress:
            progress(name, len(records), len(tensors))
    graph_record = None
    if graph is not None:
        stored = deflate(graph)
        graph_record = GraphRecord(len(graph), len(stored), zlib.crc32(stored))
        payloads.append(stored)
    return b"".join([pack_preamble(records, metadata or {}, graph_record), *payloads])


def _pack(
    name: str, tensor: npt.NDArray[Any] | Shared, profile: Profile
) -> tuple[TensorRecord, bytes | memoryview]:
    shape = _checked_shape(name, tensor)
    packed = pack_tensor(tensor, profile)
    crc = zlib.crc32(packed.data)
    record = TensorRecord(
        name, packed.mode, packed.dtype, shape, len(packed.data), crc, packed.decoded_crc
    )
    return record, packed.data


def _checked_shape(name: str, tensor: npt.NDArray[Any] | Shared) -> tuple[int, ...]:
    array = tensor.indices if isinstance(tensor, Shared) else tensor
    if not isinstance(array, np.ndarray):
        raise ArtifactError(
            f"tensor {name!r} is a {type(array).__name__}; give a NumPy array or a Shared"
        )
    if array.dtype.newbyteorder("<") not in DTYPES:
        allowed = ", ".join(dtype.name for dtype in DTYPES)
        raise ArtifactError(f"tensor {name!r} has dtype {array.dtype}; convert it to {allowed}")
    if array.ndim > MAX_DIMENSIONS:
        raise ArtifactError(
            f"tensor {name!r} has {array.ndim} dimensions; at most {MAX_DIMENSIONS}"
        )
    return array.shape
