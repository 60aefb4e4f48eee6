"""What the payloads of all coded modes begin with: codebook, gap width, flags."""

import numpy as np
import numpy.typing as npt

from compressor.artifact.types import HALF_FLAG, MAX_CODEBOOK
from compressor.coding.buffer import ByteReader
from compressor.coding.gaps import MAX_WIDTH
from compressor.errors import ArtifactError


def read_head(reader: ByteReader, shared: bool) -> tuple[int, bool, npt.NDArray[np.float32], int]:
    """Return the gap width, whether floats are float16, the codebook (k,), and its bytes."""
    size = reader.varint() if shared else 0
    if size > MAX_CODEBOOK:
        raise ArtifactError(f"the codebook has {size} entries; {MAX_CODEBOOK} are the most")
    byte = reader.byte()
    width, half = byte & ~HALF_FLAG, bool(byte & HALF_FLAG)
    if width > MAX_WIDTH:
        raise ArtifactError(f"the gap width byte is {byte:#04x}; widths go up to {MAX_WIDTH}")
    centroids = reader.take(size * (2 if half else 4))
    return width, half, read_floats(centroids, half), len(centroids)


def read_floats(data: memoryview, half: bool) -> npt.NDArray[np.float32]:
    """Return ``data`` as little-endian float32."""
    return widen(data) if half else np.frombuffer(data, dtype="<f4")


def widen(data: memoryview) -> npt.NDArray[np.float32]:
    """Return float16 ``data`` as little-endian float32."""
    half = np.frombuffer(data, dtype="<f2")
    if np.isnan(half).any():
        raise ArtifactError(
            "a float16 is NaN, which machines widen differently; NaN must be float32"
        )
    return half.astype("<f4")
