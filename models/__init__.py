"""Network architectures, and the registry that finds one by name or by the shapes of its weights.

Importing this package does not import torch: `compress --help` lists the names.
"""

from compressor.models.registry import ARCHITECTURES, Architecture, get, names, recognise

__all__ = ["ARCHITECTURES", "Architecture", "get", "names", "recognise"]
