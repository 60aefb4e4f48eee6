"""Numbers that are stored as they are, coded as differences of their bits from the base's.

A float's bits become a whole number that grows with the float, so the difference of two floats
that are close is small. Nothing is computed in floats.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.artifact.layout import TensorRecord
from compressor.artifact.types import DTYPES, Mode
from compressor.coding.arithmetic import BitDecoder, BitEncoder
from compressor.coding.residuals import Residuals

_Ints = npt.NDArray[np.int64]

_NUMBERS, _TOPS, _PLACES = 1 << 10, 1 << 9, 1 << 10
_WIDTHS = [_NUMBERS, _TOPS, _PLACES]
_BITS = 32


class Words(NamedTuple):
    """Bytes that are numbers of ``size`` bytes each, 1, 2 or 4, little-endian."""

    data: bytes | memoryview
    size: int
    floats: bool


def words_of(record: TensorRecord, payload: memoryview) -> Words:
    """Return a RAW or FP16 payload as words; a number of 8 bytes is two of them."""
    if record.mode is Mode.FP16:
        return Words(payload, 2, True)
    dtype = DTYPES[record.dtype]
    return Words(payload, min(dtype.itemsize, 4), dtype.kind == "f" and dtype.itemsize <= 4)


def encode_words(new: Sequence[bytes | memoryview], old: Sequence[Words]) -> bytes:
    """Return the stream of ``new``, each of as many bytes as its base in ``old``."""
    coder = BitEncoder()
    model = Residuals(coder, _WIDTHS, _BITS)
    _run(model, [each._replace(data=data) for each, data in zip(old, new, strict=True)], old)
    return coder.finish()


def decode_words(stream: memoryview, old: Sequence[Words]) -> list[bytes]:
    """Return what `encode_words` was given. Raises :class:`ArtifactError` for another stream."""
    coder = BitDecoder(stream)
    found = _run(Residuals(coder, _WIDTHS, _BITS), None, old)
    coder.finish()
    return found


def _run(model: Residuals, new: Sequence[Words] | None, old: Sequence[Words]) -> list[bytes]:
    """Code all words in one go: vectors are short, and learn from one another."""
    bases = [_numbers(each) for each in old]
    if not bases:
        return []
    base, bits = np.concatenate(bases), _each(old, bases, [8 * each.size for each in old])
    number = _each(old, bases, range(len(old))) % _NUMBERS
    place = np.concatenate([np.arange(len(each)) for each in bases]) % _PLACES
    top = base >> np.maximum(bits - 9, 0)
    known = np.array([number, top, place])
    modulus = np.int64(1) << bits
    values = np.zeros(len(base), dtype=np.int64)
    if new is not None:
        values = (np.concatenate([_numbers(each) for each in new]) - base) % modulus
        values -= np.where(values >= modulus >> 1, modulus, 0)
    came = (base + model.code(values, lambda part: known[:, part])) % modulus
    ends = np.cumsum([len(each) for each in bases])[:-1]
    return [_bytes(part, like) for part, like in zip(np.split(came, ends), old, strict=True)]


def _each(old: Sequence[Words], bases: Sequence[_Ints], values: Sequence[int]) -> _Ints:
    """One of ``values`` for each vector, repeated for its words."""
    return np.repeat(np.array(values, dtype=np.int64), [len(base) for base in bases])


def _numbers(words: Words) -> _Ints:
    """Whole numbers from 0 on, (n,), in the order of the floats where they are floats."""
    found = np.frombuffer(words.data, dtype=f"<u{words.size}").astype(np.int64)
    if not words.floats:
        return found
    sign = np.int64(1) << (8 * words.size - 1)
    ordered: _Ints = np.where(found & sign, 2 * sign - 1 - found, found + sign)
    return ordered


def _bytes(numbers: _Ints, like: Words) -> bytes:
    if like.floats:
        sign = np.int64(1) << (8 * like.size - 1)
        numbers = np.where(numbers & sign, numbers - sign, 2 * sign - 1 - numbers)
    return numbers.astype(f"<u{like.size}").tobytes()
