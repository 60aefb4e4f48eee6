"""A second decoder of .dcz files: plain Python, written from docs/format.md alone, and slow.

It shares nothing with the package, NumPy included, so that what both make of a file is what the
document says. Names are the document's, one module for each of its sections:

    file        the file, its directory and its checksums; `decode` begins here
    reading     conventions: numbers, varints, texts, strings of bits
    payload     modes, and what their payloads begin with
    floats      float16, and products in float32
    codes       code tables, bit streams
    frequencies frequency tables
    rans        rANS streams
    entries     gaps and values
    dense       classes, and the streams of DENSE_RANS
    packed      numbers of fixed width
    context     context mixing: the order of flags and their contexts
    mixing      chances of flags, how they are learnt, the arithmetic code
"""

from tests.golden.second.file import Tensor, decode
from tests.golden.second.reading import Refused

__all__ = ["Refused", "Tensor", "decode"]
