"""The outputs that a run writes only when asked: an INT8 file, and one in ONNX Runtime's format."""

import gzip
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from compressor.errors import UsageError
from compressor.export import int8, ort
from compressor.network import Context
from compressor.quantization.inputs import drawn
from compressor.recipe import Recipe
from compressor.settings import Export
from compressor.training.data import Data, batches

Json = dict[str, Any]
Output = tuple[bytes, Json]
BATCH = 500


def wanted(settings: Export) -> dict[str, str]:
    """What is asked for: the name of each output in the report -> how its file's name ends."""
    suffixes = {"int8": "int8.onnx", "ort": "ort"}
    return {name: suffix for name, suffix in suffixes.items() if getattr(settings, name)}


def outputs(
    model: bytes, inputs: NDArray[Any], recipe: Recipe, context: Context
) -> Iterator[tuple[str, bytes, Json]]:
    """(name in the report, file, what to report of it) of each output asked for.

    ``model`` is the run's ONNX file, ``inputs`` (N, ...) float32 what it was verified on.
    """
    makers: dict[str, Callable[[], Output]] = {
        "int8": lambda: _int8(model, recipe, context),
        "ort": lambda: _ort(model, inputs),
    }
    for name in wanted(recipe.export):
        content, report = makers[name]()
        size = {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, 9, mtime=0))}
        yield name, content, {**size, **report}


def _int8(model: bytes, recipe: Recipe, context: Context) -> Output:
    if context.data is None:  # preflight lets no run begin without
        raise UsageError("export.int8 needs images to calibrate with: give --data")
    images = drawn(context.data, recipe.export.calibration, context)
    with context.progress.task("int8: calibrate", images.count) as advance:

        def calibration() -> Iterator[NDArray[Any]]:
            for x in images.batches:
                yield x.cpu().numpy()
                advance()

        content = int8.quantize(model, calibration())
    layers, of = int8.quantized_layers(content)
    return content, {
        "calibration_images": min(recipe.export.calibration, len(context.data.train)),
        "quantized_layers": layers,
        "layers": of,
        "accuracy": _accuracy(content, context.data, recipe.threads or 1, context),
    }


def _accuracy(content: bytes, data: Data, threads: int, context: Context) -> float:
    count = math.ceil(len(data.test) / BATCH)
    with context.progress.task("int8: accuracy", count) as advance:

        def test() -> Iterator[tuple[NDArray[Any], Tensor]]:
            for x, y in batches(data.test, data, batch_size=BATCH):
                yield x.numpy(), y
                advance()

        return int8.accuracy(content, test(), threads, data.task)


def _ort(model: bytes, inputs: NDArray[Any]) -> Output:
    content = ort.convert(model)
    difference = ort.check(content, model, inputs)
    return content, {f"difference_{key}": value for key, value in asdict(difference).items()}
