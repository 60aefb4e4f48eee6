"""The .dcz file: a compressed network in one self-describing file (`docs/format.md`)."""

from compressor.artifact.reader import Artifact, decode, read
from compressor.artifact.types import Entry, Limits, Mode, Parts, Shared
from compressor.artifact.writer import Entropy, encode

__all__ = [
    "Artifact",
    "Entropy",
    "Entry",
    "Limits",
    "Mode",
    "Parts",
    "Shared",
    "decode",
    "encode",
    "read",
]
