"""The .dcz file: a compressed network in one self-describing file (`docs/format.md`)."""

from compressor.artifact.heads import is_grid
from compressor.artifact.reader import Artifact, decode, read
from compressor.artifact.types import Entry, Limits, Mode, Parts, Profile, Shared
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
