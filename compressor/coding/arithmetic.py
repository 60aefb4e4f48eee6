"""Binary arithmetic coding with chances of 16 bits, for adaptive models.

A range of 32-bit numbers is narrowed by each flag in proportion to its chance; bytes on which both
ends agree are written. After the last flag at most one byte remains to be written.
"""

import numpy as np
import numpy.typing as npt

from compressor.errors import ArtifactError

_MASK = (1 << 32) - 1
_Ints = npt.NDArray[np.int64]


class BitEncoder:
    """Writes flags."""

    def __init__(self) -> None:
        self._low, self._high = 0, _MASK
        self._out = bytearray()

    def code(self, chances: _Ints, bits: _Ints) -> _Ints:
        """Write ``bits`` (m,), each 1 with a chance, of 2^16, of 1 to 65,535; return them."""
        low, high, out = self._low, self._high, self._out
        for chance, bit in zip(chances.tolist(), bits.tolist(), strict=True):
            middle = low + ((high - low) * chance >> 16)
            if bit:
                high = middle
            else:
                low = middle + 1
            while not (low ^ high) >> 24:
                out.append(high >> 24)
                low, high = low << 8 & _MASK, (high << 8 | 255) & _MASK
        self._low, self._high = low, high
        return bits

    def finish(self) -> bytes:
        """Return the stream."""
        if self._low:
            self._out.append((self._low >> 24) + 1)
        return bytes(self._out)


class BitDecoder:
    """Reads flags; a stream goes on in zeros, but `finish` wants it to be exactly what it must."""

    def __init__(self, stream: memoryview) -> None:
        self._stream = stream
        self._low, self._high = 0, _MASK
        self._code = int.from_bytes(bytes(stream[:4]).ljust(4, b"\0"), "big")
        self._position = 0

    def code(self, chances: _Ints, bits: _Ints) -> _Ints:
        """Return the next flags (m,); ``bits`` are not looked at."""
        low, high, code = self._low, self._high, self._code
        stream, position = self._stream, self._position
        came = []
        for chance in chances.tolist():
            middle = low + ((high - low) * chance >> 16)
            if code <= middle:
                high = middle
                came.append(1)
            else:
                low = middle + 1
                came.append(0)
            while not (low ^ high) >> 24:
                following = stream[position + 4] if position + 4 < len(stream) else 0
                code = (code << 8 | following) & _MASK
                position += 1
                low, high = low << 8 & _MASK, (high << 8 | 255) & _MASK
        self._low, self._high, self._code, self._position = low, high, code, position
        return np.array(came, dtype=np.int64)

    def finish(self) -> None:
        """Raise unless the stream ends as an encoder ends it."""
        last = bytes([(self._low >> 24) + 1]) if self._low else b""
        size = self._position + len(last)
        if len(self._stream) != size or self._stream[self._position :] != last:
            raise ArtifactError("a context-mixed stream does not end where it must")
