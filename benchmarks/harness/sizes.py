"""Bytes of a file: as it is, and as general compressors would ship it."""

import gzip
import importlib
from pathlib import Path
from typing import Any

SMALL = 1 << 25
"""Files up to so many bytes are compressed as well as zstd's ordinary levels can."""


def sizes(path: Path) -> dict[str, Any]:
    """``zstd_bytes`` is None where neither Python 3.14's module nor zstandard is here."""
    content = path.read_bytes()
    level = 19 if len(content) <= SMALL else 9
    return {
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, 9, mtime=0)),
        "zstd_bytes": zstd(content, level),
        "zstd_level": level,
    }


def zstd(content: bytes, level: int) -> int | None:
    for name in ("compression.zstd", "zstandard"):
        try:
            compress = importlib.import_module(name).compress
        except ImportError:
            continue
        return len(compress(content, level))
    return None
