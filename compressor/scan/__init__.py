"""Which layers can be compressed how far: every layer changed alone, and what follows from it."""

from compressor.scan.scan import KINDS, Scan, proposals, scan, to_json

__all__ = ["KINDS", "Scan", "proposals", "scan", "to_json"]
