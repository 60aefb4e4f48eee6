"""Deep Compression end to end: a trained network in, a small artifact and a verified ONNX file out.

    import compressor
    from compressor import Prune, Recipe, Share

    recipe = Recipe(prune=Prune(sensitivity=0.25), share=Share(bits=5))
    result = compressor.compress("lenet5.pt", recipe, data="mnist")
    network = compressor.load("lenet5-compressed/lenet5.dcz")      # a torch module
    runtime = compressor.session("lenet5-compressed/lenet5.dcz")   # in ONNX Runtime
    tensors = compressor.arrays("lenet5-compressed/lenet5.dcz")    # NumPy arrays by name

Importing the package imports neither torch nor anything that takes time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.api import Result, compress, load, save
    from compressor.errors import CompressorError
    from compressor.reading import arrays, session
    from compressor.recipe import Recipe
    from compressor.settings import (
        Calibrate,
        DataSpec,
        Encode,
        Export,
        Prune,
        Share,
        Targets,
        Training,
    )

    __version__: str

_HOMES = {
    **dict.fromkeys(("Result", "compress", "load", "save"), "compressor.api"),
    **dict.fromkeys(("arrays", "session"), "compressor.reading"),
    "CompressorError": "compressor.errors",
    "Targets": "compressor.settings",
    **dict.fromkeys(
        ("Calibrate", "DataSpec", "Encode", "Export", "Prune", "Recipe", "Share", "Training"),
        "compressor.recipe",
    ),
}

__all__ = [
    "Calibrate",
    "CompressorError",
    "DataSpec",
    "Encode",
    "Export",
    "Prune",
    "Recipe",
    "Result",
    "Share",
    "Targets",
    "Training",
    "__version__",
    "arrays",
    "compress",
    "load",
    "save",
    "session",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("compressor")
    if name not in _HOMES:
        raise AttributeError(f"module 'compressor' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
