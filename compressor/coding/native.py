"""The C core, where it was built: a shared library without dependencies, called through ctypes.

NumPy and C give the same bits, so which of them works is a matter of speed alone. The environment
variable ``COMPRESS_BACKEND`` chooses: ``c``, ``numpy``, or nothing for C where it is there.
"""

import ctypes
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from compressor.errors import UsageError

VARIABLE = "COMPRESS_BACKEND"
BACKENDS = ("c", "numpy")
OK, RANGE, END, NO_ROOM, MISUSE = range(5)
"""What functions of the core return."""


@cache
def built() -> ctypes.CDLL | None:
    """Return the library, ``None`` where it was not built or cannot be loaded."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_core{suffix}")
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                return None
    return None


def library() -> ctypes.CDLL | None:
    """Return the library that is to be used, ``None`` for NumPy.

    Raises:
        UsageError: the variable names an unknown backend, or C where it was not built.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", *BACKENDS):
        raise UsageError(f"{VARIABLE} is {wanted!r}; there are {' and '.join(BACKENDS)}")
    found = None if wanted == "numpy" else built()
    if wanted == "c" and found is None:
        raise UsageError(f"{VARIABLE} is c, but the C core was not built: there was no C compiler")
    return found


def described() -> str:
    """Return the backend in words, for ``compress --version``."""
    if library() is not None:
        return "C core"
    if built() is not None:
        return f"NumPy, as {VARIABLE} says"
    return "NumPy: the C core was not built, for want of a C compiler; coding is slower"
