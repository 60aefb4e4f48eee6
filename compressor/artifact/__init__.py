"""The .dcz file: a compressed network in one self-describing file (`docs/format.md`)."""

from typing import TYPE_CHECKING, Any

from compressor.artifact.heads import is_grid
from compressor.artifact.reader import Artifact, decode, read
from compressor.artifact.types import Entry, Limits, Mode, Parts, Profile, Shared

if TYPE_CHECKING:
    from compressor.artifact.writer import encode

__all__ = [
    "Artifact",
    "Entry",
    "Limits",
    "Mode",
    "Parts",
    "Profile",
    "Shared",
    "decode",
    "encode",
    "is_grid",
    "read",
]


def __getattr__(name: str) -> Any:
    """Import the writer when it is asked for: who only reads need not wait for it."""
    if name == "encode":
        from compressor.artifact.writer import encode

        return encode
    raise AttributeError(f"module 'compressor.artifact' has no attribute {name!r}")
