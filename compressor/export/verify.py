"""Does the ONNX file compute what PyTorch computes? Run both on the same inputs and say."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from compressor.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Difference:
    """Largest difference over all outputs: absolute, and relative to the largest |output|."""

    absolute: float
    relative: float
    samples: int


def session(model: bytes, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU. Raises :class:`ExportError` where it cannot load."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings are about its own choices
    return open_session(model, options)


def open_session(model: bytes, options: Any) -> Any:
    """:func:`session`, with options of one's own."""
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ExportError(f"ONNX Runtime cannot load the file: {first_line(error)}") from None


def run(runtime: Any, name: str, inputs: Any) -> Any:
    """The first output for ``inputs``; :class:`ExportError` where the runtime refuses."""
    try:
        return runtime.run(None, {name: inputs})[0]
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot run the file: {first_line(error)}") from None


def compare(model: bytes, module: "nn.Module", inputs: "Tensor") -> Difference:
    """Run ``inputs`` (N, ...) float32 through ONNX Runtime and PyTorch, both on the CPU."""
    import torch

    with torch.no_grad():
        expected = module.cpu().eval()(inputs).numpy()
    runtime = session(model)
    return difference(expected, run(runtime, runtime.get_inputs()[0].name, inputs.numpy()))


def check(model: bytes, module: "nn.Module", inputs: "Tensor", tolerance: float) -> Difference:
    """:func:`compare`, and :class:`ExportError` above ``tolerance`` (relative)."""
    found = compare(model, module, inputs)
    if not found.relative <= tolerance:
        raise ExportError(
            f"the ONNX file differs from PyTorch by {found.relative:.2e} relative "
            f"({found.absolute:.2e} absolute) on {found.samples} inputs, more than "
            f"{tolerance:g}: it was not written"
        )
    return found


def difference(expected: Any, found: Any) -> Difference:
    """Compare two arrays of outputs, (N, ...)."""
    if expected.shape != found.shape:
        raise ExportError(f"ONNX gives shape {found.shape}, PyTorch {expected.shape}")
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, and no match
        absolute = float(np.abs(expected - found).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    relative = absolute / scale if scale else absolute
    return Difference(absolute, relative, len(expected))


def accuracy(
    model: bytes,
    batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]],
    threads: int = 1,
) -> float:
    """Top-1 accuracy (0 to 1) in ONNX Runtime on batches of images (B, ...) and labels (B,)."""
    runtime = session(model, threads)
    name = runtime.get_inputs()[0].name
    right = total = 0
    for images, labels in batches:
        right += int((run(runtime, name, images).argmax(1) == labels).sum())
        total += len(labels)
    return right / total


def first_line(error: Exception) -> str:
    """What an exception of ONNX Runtime says; the rest is its own stack."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
