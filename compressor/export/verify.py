"""Does the ONNX file compute what PyTorch computes? Run both on the same inputs and say."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from compressor.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.examples import Example


@dataclass(frozen=True)
class Difference:
    """Largest difference over all outputs: absolute, and relative to the largest |output|."""

    absolute: float
    relative: float
    samples: int


def session(model: bytes | Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU, of a file's bytes or, where it is large, of its path.

    Raises :class:`ExportError` where it cannot load.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings are about its own choices
    return open_session(model, options)


def open_session(model: bytes | Path, options: Any) -> Any:
    """:func:`session`, with options of one's own."""
    try:
        found = model if isinstance(model, bytes) else os.fspath(model)
        return onnxruntime.InferenceSession(found, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ExportError(f"ONNX Runtime cannot load the file: {first_line(error)}") from None


def version() -> str:
    """ONNX Runtime's."""
    return str(onnxruntime.__version__)


_LOADS = """
import sys, onnxruntime
onnxruntime.InferenceSession(sys.stdin.buffer.read(), providers=["CPUExecutionProvider"])
"""


def crashes(model: bytes) -> bool:
    """Whether ONNX Runtime takes a process down as it loads the file: tried in one of its own.

    (Version 1.32.0 does, for one, with a float16 product behind a transpose.)
    """
    done = subprocess.run([sys.executable, "-c", _LOADS], input=model, capture_output=True)
    return done.returncode < 0


def run(runtime: Any, name: str, inputs: Any) -> Any:
    """The first output for ``inputs``; :class:`ExportError` where the runtime refuses."""
    try:
        return runtime.run(None, {name: inputs})[0]
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot run the file: {first_line(error)}") from None


Outputs = list[NDArray[Any]]
"""What a network gives for inputs (N, ...): an array (N, ...) each."""


def compare(model: bytes | Path, module: "nn.Module", inputs: "Example") -> Difference:
    """Run inputs (N, ...) through ONNX Runtime and PyTorch, both on the CPU; the worst output's."""
    return compare_outputs(model, inputs, outputs(module, inputs))


def outputs(module: "nn.Module", inputs: "Example") -> Outputs:
    """PyTorch's outputs for inputs (N, ...), on the CPU."""
    import torch

    from compressor.examples import outputs_of

    module.cpu().eval()
    with torch.no_grad():
        return _joined([x.numpy() for x in outputs_of(module(*part))] for part in _parts(inputs))


def compare_outputs(model: bytes | Path, inputs: "Example", expected: Outputs) -> Difference:
    """Run inputs (N, ...) through ONNX Runtime, on the CPU; the worst output's difference."""
    runtime = session(model)
    found = _joined(_outputs(runtime, part) for part in _parts(inputs))
    return worst([difference(e, f) for e, f in zip(expected, found, strict=True)])


_AT_ONCE = 1 << 20
"""Numbers of inputs that are run together: activations of images are many times larger."""


def _parts(inputs: "Example") -> Iterator[tuple["Tensor", ...]]:
    from compressor.examples import inputs_of

    given = inputs_of(inputs)
    size = max(1, min(len(given[0]), _AT_ONCE // max(1, sum(x[0].numel() for x in given))))
    for at in range(0, len(given[0]), size):
        yield tuple(x[at : at + size] for x in given)


def _joined(parts: Iterable[Outputs]) -> Outputs:
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _outputs(runtime: Any, given: tuple["Tensor", ...]) -> list[Any]:
    try:
        feed = {i.name: x.numpy() for i, x in zip(runtime.get_inputs(), given, strict=True)}
        found: list[Any] = runtime.run(None, feed)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ExportError(f"ONNX Runtime cannot run the file: {first_line(error)}") from None
    return found


def worst(differences: list[Difference]) -> Difference:
    """Of several outputs' differences, the largest relative one."""
    return max(differences, key=lambda each: each.relative)


def check(
    model: bytes | Path, module: "nn.Module", inputs: "Example", tolerance: float
) -> Difference:
    """:func:`compare`, and :class:`ExportError` above ``tolerance`` (relative)."""
    return within(compare(model, module, inputs), tolerance)


def within(found: Difference, tolerance: float) -> Difference:
    """The difference; :class:`ExportError` above ``tolerance`` (relative)."""
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
        gap = np.abs(expected.astype(np.float64) - found.astype(np.float64))
        absolute = float(gap.max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    relative = absolute / scale if scale else absolute
    return Difference(absolute, relative, len(expected))


Score = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""(outputs (B, ...), targets (B, ...)) -> the figure of each, (B,)."""


def _right(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(outputs.argmax(1) == labels)


def accuracy(
    model: bytes | Path,
    batches: Iterable[tuple[NDArray[np.float32], NDArray[Any]]],
    threads: int = 1,
    score: Score = _right,
) -> float:
    """The mean score, top-1 accuracy (0 to 1), in ONNX Runtime on batches of images and targets."""
    runtime = session(model, threads)
    name = runtime.get_inputs()[0].name
    found, total = 0.0, 0
    for images, targets in batches:
        found += float(score(run(runtime, name, images), targets).sum(dtype=np.float64))
        total += len(targets)
    return found / total


def first_line(error: Exception) -> str:
    """What an exception of ONNX Runtime says; the rest is its own stack."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
