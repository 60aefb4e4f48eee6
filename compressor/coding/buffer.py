"""Bytes read front to back, every length checked before it is used; variable-length integers.

A varint is unsigned LEB128: seven bits a byte, least significant first, the high bit set on every
byte but the last. It has one form only (no superfluous zero byte at the end) and is below 2^64.
"""

from compressor.errors import ArtifactError

_MAX_VARINT_BYTES = 10


def varint(value: int) -> bytes:
    """Return ``value`` (0 to 2^64 - 1) as a varint of 1 to 10 bytes."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"a varint holds 0 to 2^64 - 1, not {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class ByteReader:
    """A position in a buffer; ``what`` names the buffer in the messages of `ArtifactError`."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self._data = memoryview(data).cast("B")
        self._size = len(self._data)
        self._what = what
        self.position = 0

    @property
    def remaining(self) -> int:
        """Number of bytes not yet read."""
        return self._size - self.position

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes, without a copy."""
        if count > self.remaining:
            raise ArtifactError(
                f"{self._what} is truncated: {count} bytes are needed at byte {self.position}, "
                f"{self.remaining} are left"
            )
        start = self.position
        self.position += count
        return self._data[start : self.position]

    def peek(self, count: int) -> memoryview:
        """Return up to ``count`` bytes without moving on."""
        return self._data[self.position : self.position + count]

    def byte(self) -> int:
        """Return the next byte."""
        if self.position == self._size:
            self.take(1)  # which raises
        self.position += 1
        return self._data[self.position - 1]

    def varint(self) -> int:
        """Return the next varint."""
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise ArtifactError(f"{self._what} holds a varint with a superfluous zero byte")
                if value >= 1 << 64:
                    break
                return value
        raise ArtifactError(f"{self._what} holds a varint of 2^64 or more")

    def finish(self) -> None:
        """Raise unless every byte has been read."""
        if self.remaining:
            raise ArtifactError(f"{self._what} has {self.remaining} bytes too many at its end")
