"""What the payloads of all coded modes begin with: codebook, gap width, flags."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.artifact.types import BLOCK, GRID_FLAG, HALF_FLAG, MAX_CODEBOOK
from compressor.coding.buffer import ByteReader, varint
from compressor.coding.gaps import MAX_WIDTH
from compressor.errors import ArtifactError

Book = npt.NDArray[np.float32]


class Head(NamedTuple):
    """The parsed head: gap width, whether floats are float16, codebook (k,), and its bytes."""

    width: int
    half: bool
    codebook: Book
    bytes: int


def pack_head(codebook: Book, width: int) -> bytes:
    """Return the head of a shared mode's payload, the codebook (k,) in the smallest form."""
    flag, data = pack_codebook(codebook)
    return varint(len(codebook)) + bytes([width + flag]) + data


def pack_codebook(codebook: Book) -> tuple[int, bytes]:
    """Return the flag of the smallest form in which the file can hold ``codebook``, and that."""
    book = np.ascontiguousarray(codebook, dtype="<f4")
    grid = _pack_grid(book)
    if fits_half(book.view("<u4")):
        forms = [(HALF_FLAG, narrow(book).tobytes())]
    else:
        forms = [(0, book.tobytes())]
    if grid is not None:
        forms.append((GRID_FLAG, grid))
    return min(forms, key=lambda form: len(form[1]))


def is_grid(codebook: Book) -> bool:
    """Whether the file can hold ``codebook`` as the multiples of one float32 step."""
    return _pack_grid(np.ascontiguousarray(codebook, dtype="<f4")) is not None


def _pack_grid(book: Book) -> bytes | None:
    """Return the negative levels' number and the step, where ``book`` is a grid bit for bit."""
    negative = int(np.count_nonzero(book < 0))
    if negative < len(book):
        step = book[negative]
    elif negative:
        step = -book[-1]
    else:
        return None
    if not (np.isfinite(step) and step > 0):
        return None
    same = _grid(len(book), negative, step).view(np.uint32) == book.view(np.uint32)
    return varint(negative) + np.array(step, "<f4").tobytes() if same.all() else None


def _grid(size: int, negative: int, step: np.float32) -> Book:
    """Return the multiples -negative..-1, 1..size - negative of ``step``, in float32."""
    levels = np.arange(-negative, size - negative + 1).astype(np.float32)
    with np.errstate(over="ignore"):
        found: Book = np.delete(levels, negative) * np.float32(step)
    return found


def read_head(reader: ByteReader, shared: bool) -> Head:
    """Read the head of a coded payload; GAP_FLOAT (not ``shared``) has no codebook."""
    size = reader.varint() if shared else 0
    if size > MAX_CODEBOOK:
        raise ArtifactError(f"the codebook has {size} entries; {MAX_CODEBOOK} are the most")
    byte = reader.byte()
    width, form = byte & (HALF_FLAG - 1), byte & ~(HALF_FLAG - 1)
    if width > MAX_WIDTH or form not in (0, HALF_FLAG, GRID_FLAG if shared else 0):
        raise ArtifactError(f"the gap width byte is {byte:#04x}; widths go up to {MAX_WIDTH}")
    start = reader.position
    if form == GRID_FLAG:
        codebook = _read_grid(reader, size)
    else:
        half = form == HALF_FLAG
        codebook = read_floats(reader.take(size * (2 if half else 4)), half)
    return Head(width, form == HALF_FLAG, codebook, reader.position - start)


def _read_grid(reader: ByteReader, size: int) -> Book:
    negative = reader.varint()
    if negative > size:
        raise ArtifactError(f"a grid of {size} has {negative} negative levels")
    step = read_step(reader)
    found = _grid(size, negative, step)
    if not np.isfinite(found).all():
        raise ArtifactError(f"a grid of step {step} leaves the range of float32")
    return found


def read_step(reader: ByteReader) -> np.float32:
    """Return the step of a grid."""
    (step,) = np.frombuffer(reader.take(4), dtype="<f4")
    if not (np.isfinite(step) and step > 0):
        raise ArtifactError(f"the step of a grid is {step}; it must be finite and over 0")
    found: np.float32 = step
    return found


def read_floats(data: memoryview, half: bool) -> Book:
    """Return ``data`` as little-endian float32."""
    return widen(data) if half else np.frombuffer(data, dtype="<f4")


def widen(data: memoryview) -> Book:
    """Return float16 ``data`` as little-endian float32."""
    half = np.frombuffer(data, dtype="<f2")
    if np.isnan(half).any():
        raise ArtifactError(
            "a float16 is NaN, which machines widen differently; NaN must be float32"
        )
    return half.astype("<f4")


def narrow(wide: Book) -> npt.NDArray[np.float16]:
    """Return ``wide`` as float16, rounded."""
    with np.errstate(over="ignore", under="ignore"):
        return wide.astype("<f2")


def fits_half(bits: npt.NDArray[Any]) -> bool:
    """Whether every float32 value, given as bits, survives float16; a NaN does not count as such.

    How a NaN is widened differs between machines, so none is ever narrowed.
    """
    for start in range(0, len(bits), BLOCK):
        wide = bits[start : start + BLOCK].view("<f4")
        back = narrow(wide).astype("<f4")
        if np.isnan(wide).any() or not np.array_equal(wide.view("<u4"), back.view("<u4")):
            return False
    return True
