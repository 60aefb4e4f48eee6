"""The ONNX file -> one of 8-bit integers with scales, by ONNX Runtime's static quantization.

QDQ format: standard ONNX operators, with ``QuantizeLinear`` and ``DequantizeLinear`` around each
that can be computed in integers; a runtime fuses them into integer kernels. The ranges of the
activations are the least and greatest values that real images gave (*calibration*). Source:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.errors import ExportError
from compressor.export import verify
from compressor.export.graph import INPUT
from compressor.tasks import CLASSIFICATION, Task

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(model: bytes, images: Iterable[NDArray[np.float32]]) -> bytes:
    """The INT8 QDQ file of an ONNX file; ``images`` are batches (B, ...) float32, normalised.

    Weights are int8, symmetric, with a scale per output channel; activations uint8, the one
    choice that x86 and Arm both have fast kernels for (int8 activations are slower than fp32 on
    x86). On x86 without VNNI, ONNX Runtime adds such products in 16 bits, which can saturate: the
    accuracy is that of the CPU that measures it. Operators that ONNX Runtime has no integer form
    of stay float.

    The same model, images and machine give the same bytes. Not so two kinds of CPU: the ranges
    are what its float kernels computed. Raises :class:`ExportError` where ONNX Runtime cannot run
    the images or quantize the network.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        prepared, target = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        try:
            quant_pre_process(onnx.ModelProto.FromString(model), prepared)
            quantize_static(
                prepared,
                target,
                _Reader(iter(images)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise ExportError(
                f"ONNX Runtime cannot quantize the network: {verify.first_line(error)}"
            ) from None
        return _portable(onnx.load(target))


def accuracy(
    model: bytes,
    batches: Iterable[tuple[NDArray[np.float32], Tensor]],
    threads: int = 1,
    task: Task = CLASSIFICATION,
) -> float:
    """The task's metric, top-1 accuracy (0 to 1), in ONNX Runtime on batches of images (B, ...) and
    targets (B, ...); ``task`` is given the first output, as a tensor."""
    runtime = verify.session(model, threads)
    right, total = 0.0, 0
    for images, targets in batches:
        output = torch.from_numpy(verify.run(runtime, INPUT, images))
        right += float(task.score(output, torch.as_tensor(targets)).double().sum())
        total += len(targets)
    return right / total


def quantized_layers(model: bytes) -> tuple[int, int]:
    """(layers whose input and weight are quantized, layers in all)."""
    nodes = onnx.ModelProto.FromString(model).graph.node
    dequantized = {
        name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output
    }
    layers = [node for node in nodes if node.op_type in LAYERS]
    return sum(dequantized.issuperset(node.input[:2]) for node in layers), len(layers)


class _Reader:
    """Hands ONNX Runtime one batch after another."""

    def __init__(self, images: Iterator[NDArray[np.float32]]) -> None:
        self.images = images

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.images, None)
        return None if batch is None else {INPUT: batch}


def _portable(proto: onnx.ModelProto) -> bytes:
    """Without the operator sets that ONNX Runtime's optimiser declares and no node uses."""
    used = {node.domain for node in proto.graph.node}
    kept = [item for item in proto.opset_import if item.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints and logs through the root logger; none of it is for users."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
