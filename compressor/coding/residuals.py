"""Differences from something known to bits and back, by adaptive models, in NumPy.

Signed numbers, most of them small, are coded as flags: is it 0, its sign, its magnitude. Contexts
that both sides know beforehand predict each flag by logistic mixing (`mixing`). So nothing depends
on what was decoded just before, and numbers are coded in groups, each a vector here. Everything is
integers, so every machine gives the same bits. `docs/updates.md` has the whole model.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.coding.arithmetic import BitDecoder, BitEncoder
from compressor.coding.mixing import Magnitudes, Mixer

_Ints = npt.NDArray[np.int64]

Contexts = Callable[[slice], _Ints]

SHORT, LONG = 32, 256
_BEGINNING = 1 << 12
_RATE = 8


def groups(count: int) -> Iterator[slice]:
    """Yield the groups of ``count`` numbers: short ones first, while there is most to learn."""
    start = 0
    while start < count:
        stop = start + (SHORT if start < _BEGINNING else LONG)
        yield slice(start, min(stop, count))
        start = stop


class Residuals:
    """Codes numbers by ``coder``; ``widths`` say how many values the context of each input has.

    ``bits`` is the most that the magnitude of a number may have.
    """

    def __init__(self, coder: BitEncoder | BitDecoder, widths: list[int], bits: int) -> None:
        self._coder, self._most = coder, bits - 1
        nodes = 4 * bits
        self._zero = Mixer(widths, 1, 1, _RATE)
        self._sign = Mixer(widths, 1, 1, _RATE)
        self._sizes = Magnitudes(Mixer(widths, nodes, nodes, _RATE), coder)

    def code(self, values: npt.NDArray[Any], contexts: Contexts) -> _Ints:
        """Write signed ``values`` (n,), or read and return them.

        ``contexts`` gives those of a group of m, (inputs, m), as they are wanted.
        """
        found = np.empty(len(values), dtype=np.int64)
        for part in groups(len(values)):
            found[part] = self._group(values[part].astype(np.int64), contexts(part))
        return found

    def _group(self, values: _Ints, contexts: _Ints) -> _Ints:
        used = self._flags(self._zero, contexts, values != 0)
        kept = np.flatnonzero(used)
        if len(kept):
            contexts, values = contexts[:, kept], values[kept]
            negative = self._flags(self._sign, contexts, values < 0)
            most = np.full(len(kept), self._most)
            sizes = self._sizes.code(contexts, most, np.abs(values))
            used[kept] = np.where(negative, -sizes, sizes)
        return used

    def _flags(self, mixer: Mixer, contexts: _Ints, flags: Any) -> _Ints:
        none = np.zeros(len(flags), dtype=np.int64)
        came = self._coder.code(mixer.predict(none, none, contexts), flags.astype(np.int64))
        mixer.learn(came)
        return came
