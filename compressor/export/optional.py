"""The files that are written only when asked (``--emit``), each run and measured in ONNX Runtime.

Every one is made from the dense ONNX file, and compared with it on the same inputs.
"""

import gzip
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.errors import UsageError
from compressor.export import fp16, int8, ort, verify
from compressor.export.graph import INPUT
from compressor.files import gzip_size, size_of
from compressor.network import Context
from compressor.quantization.inputs import drawn
from compressor.settings import Export
from compressor.training.data import Data, batches

Json = dict[str, Any]
BATCH = 500
SUFFIXES = {"ort": "ort", "int8": "int8.onnx", "fp16": "fp16.onnx"}
NOT_MADE = "not_made"
"""Where a report says which files there are not, and why."""
TOLERANCES = {
    "onnx": 0.0,
    "ort": ort.TOLERANCE,
    "int8": int8.TOLERANCE,
    "fp16": fp16.TOLERANCE,
}
"""How far outputs may be from the ONNX file's, relative to the largest."""


def wanted(settings: Export) -> dict[str, str]:
    """What is asked for beside the ONNX file: its name -> how its file's name ends."""
    return {name: SUFFIXES[name] for name in settings.emit if name in SUFFIXES}


def check_small(settings: Export) -> None:
    """Of a network over 2 GB there is an ONNX file alone: raise :class:`UsageError` for others."""
    if names := ", ".join(name for name in settings.emit if name in SUFFIXES):
        raise UsageError(
            f"export.emit {names}: the network is over 2 GB, more than such a file can hold: leave "
            "it out (--emit)"
        )


def outputs(
    model: bytes | Path, inputs: NDArray[Any], settings: Export, context: Context, threads: int = 1
) -> Iterator[tuple[str, bytes | Path | None, Json]]:
    """(name, file, what to report of it) of each that is asked for, ``onnx`` being ``model``.

    A network over 2 GB is a path, and the others are not made of it. Of one that ONNX Runtime
    crashes on there is no file (None), and ``why`` is all that there is to report.

    ``inputs`` (N, ...) float32 are what ``model`` was verified on. Without data there is no
    accuracy (None). Where an output is not finite there is no difference (None). Raises
    :class:`ExportError` where ONNX Runtime cannot make or run a file.
    """
    makers: dict[str, Callable[[], tuple[bytes | Path, Json]]] = {"onnx": lambda: (model, {})}
    if isinstance(model, Path):
        check_small(settings)
    else:
        makers |= {
            "ort": lambda: (ort.convert(model), {}),
            "int8": lambda: _int8(model, settings, context),
            "fp16": lambda: (fp16.convert(model), {}),
        }
    expected = verify.run(verify.session(model), INPUT, inputs) if settings.emit else None
    for name in settings.emit:
        content, more = makers[name]()
        if isinstance(content, bytes) and content is not model and verify.crashes(content):
            yield name, None, {"why": f"ONNX Runtime {verify.version()} crashes as it loads it"}
            continue
        found = verify.run(verify.session(content), INPUT, inputs)
        yield (
            name,
            content,
            {
                **_sizes(content, threads),
                **_difference(expected, found),
                "tolerance": TOLERANCES[name],
                "accuracy": _accuracy(name, content, threads, context),
                **more,
            },
        )


def _sizes(content: bytes | Path, threads: int) -> Json:
    if isinstance(content, Path):
        return {"bytes": size_of(content), "gzip_bytes": gzip_size(content, threads)}
    return {"bytes": len(content), "gzip_bytes": len(gzip.compress(content, 9, mtime=0))}


def missed(export: Json) -> list[str]:
    """A line for each file that could not be made, or whose outputs are farther from the ONNX
    file's than its tolerance."""
    lines = [f"{name}: not written: {why}" for name, why in export.get(NOT_MADE, {}).items()]
    for name, tolerance in TOLERANCES.items():
        if name not in export:
            continue
        found = export[name]["difference_relative"]
        if found is None:
            lines.append(f"{name}: its outputs are not all finite numbers")
        elif not found <= tolerance:
            lines.append(
                f"{name}: its outputs differ by {found:.2g} of the largest from the ONNX file's, "
                f"more than {tolerance:g}"
            )
    return lines


def _difference(expected: Any, found: Any) -> Json:
    if not np.isfinite(found).all():
        return {"difference_absolute": None, "difference_relative": None}
    gap = verify.difference(expected, found)
    return {"difference_absolute": gap.absolute, "difference_relative": gap.relative}


def _int8(model: bytes, settings: Export, context: Context) -> tuple[bytes, Json]:
    if context.data is None:  # preflight lets no run begin without
        raise UsageError("export.emit int8 needs images to calibrate with: give --data")
    images = drawn(context.data, settings.calibration, context)
    with context.progress.task("int8: calibrate", images.count) as advance:

        def calibration() -> Iterator[NDArray[Any]]:
            for x in images.batches:
                yield x.cpu().numpy()
                advance()

        content = int8.quantize(model, calibration())
    layers, of = int8.quantized_layers(content)
    return content, {
        "calibration_images": min(settings.calibration, len(context.data.train)),
        "quantized_layers": layers,
        "layers": of,
    }


def _accuracy(name: str, content: bytes | Path, threads: int, context: Context) -> float | None:
    data = context.data
    if data is None or not len(data.test):
        return None

    def score(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        given = torch.from_numpy(outputs), torch.from_numpy(targets)
        return np.asarray(data.task.score(*given).numpy())

    with context.progress.task(f"{name}: accuracy", math.ceil(len(data.test) / BATCH)) as advance:
        return verify.accuracy(content, _test(data, advance), threads, score)


def _test(data: Data, advance: Callable[[], None]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for x, y in batches(data.test, data, batch_size=BATCH):
        yield x.numpy(), y.numpy()
        advance()
