"""ONNX Runtime's static quantization, as its documentation has it. Runs in its own environment.

    PYTHON int8_worker.py DENSE.onnx IMAGES.npy INT8.onnx QInt8

IMAGES are float32 (N, ...), normalised. The documentation's advice for convolutions on x86: shapes
inferred and graph optimised first, QDQ format, a scale per channel. Activations are QInt8, its
default, or QUInt8; all else is its default.
"""

import sys
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """One image after another."""

    def __init__(self, name: str, images: Any) -> None:
        self.feeds = iter([{name: images[at : at + 1]} for at in range(len(images))])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def main() -> None:
    dense, images, target, activations = sys.argv[1:]
    prepared = f"{target}.prepared"
    quant_pre_process(dense, prepared)
    name = onnx.load(prepared).graph.input[0].name
    reader = Reader(name, np.load(images))
    quantize_static(
        prepared,
        target,
        reader,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType[activations],
    )


if __name__ == "__main__":
    main()
