"""What can happen to the bytes of a file, by accident or on purpose.

Each function changes ``data``, which is not empty, in place; ``other`` is another file.
"""

from collections.abc import Callable
from random import Random

Mutation = Callable[[Random, bytearray, bytes], None]

_TELLING = (0, 1, 0x7F, 0x80, 0xFF)


def flip_bits(rng: Random, data: bytearray, other: bytes) -> None:
    """Flip one to three bits."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(8 * len(data))
        data[at >> 3] ^= 1 << (at & 7)


def set_bytes(rng: Random, data: bytearray, other: bytes) -> None:
    """Set one to three bytes, mostly to where numbers begin or end."""
    for _ in range(rng.randrange(1, 4)):
        value = rng.choice(_TELLING) if rng.random() < 0.8 else rng.randrange(256)
        data[rng.randrange(len(data))] = value


def truncate(rng: Random, data: bytearray, other: bytes) -> None:
    """Cut the end off."""
    del data[rng.randrange(len(data)) :]


def cut_out(rng: Random, data: bytearray, other: bytes) -> None:
    """Leave up to 39 bytes out."""
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 40)]


def insert(rng: Random, data: bytearray, other: bytes) -> None:
    """Put up to nine bytes in."""
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.randrange(1, 10))


def repeat(rng: Random, data: bytearray, other: bytes) -> None:
    """Copy a stretch over another one, or in between."""
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    size = rng.randrange(1, 60)
    data[target : target + size * rng.randrange(2)] = data[source : source + size]


def splice(rng: Random, data: bytearray, other: bytes) -> None:
    """Go on with another file, at the same place as a torn write does or at any other."""
    at = rng.randrange(len(data))
    data[at:] = other[at if rng.random() < 0.5 else rng.randrange(len(other)) :]


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, set_bytes, truncate, cut_out),
    *(insert, repeat, splice),
)


def mutated(seed: int, data: bytes, other: bytes) -> bytes:
    """The mutant of ``data`` that ``seed`` names; seeds take the mutations in turn."""
    out = bytearray(data)
    MUTATIONS[seed % len(MUTATIONS)](Random(seed), out, other)
    return bytes(out)
