"""The ONNX file -> ONNX Runtime's own format, which its mobile and web builds read.

A build of ONNX Runtime without ONNX's own parser and operator schemas (a *minimal build*) reads no
other files. See https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html.
"""

import tempfile
from pathlib import Path

import onnxruntime

from compressor.export import ort_layout, verify

TOLERANCE = 1e-5
"""Of the largest output: the same operators, in another order of sums perhaps."""


def convert(model: bytes) -> bytes:
    """The ``.ort`` file of an ONNX file: the same bytes for the same file and ONNX Runtime.

    Only optimisations of the basic level are made: those that leave standard ONNX operators, so
    that every build and every accelerator can run the file. The further levels fuse operators
    into ones of this CPU provider (extended) or lay tensors out as this very CPU likes (all).
    A full build does not optimise an ``.ort`` file again, so on a desktop it may run slower than
    the ONNX file. Raises :class:`ExportError` where ONNX Runtime cannot convert.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.add_session_config_entry("session.save_model_format", "ORT")
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "model.ort"
        options.optimized_model_filepath = str(target)
        verify.open_session(model, options)
        return ort_layout.settled(target.read_bytes())
