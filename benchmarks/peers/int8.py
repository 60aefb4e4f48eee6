"""ONNX Runtime's quantizer from our side, in an environment with nothing of ours."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compressor.benchmarks.rivals import install
from compressor.training.data import Data, batches

IMAGES = 256
WORKER = Path(__file__).with_name("int8_worker.py")


@dataclass(frozen=True)
class Quantizer:
    """``name`` tells the version, ``python`` runs it."""

    name: str
    python: Path

    def quantize(self, model: bytes, data: Data, activations: str) -> bytes:
        """The INT8 file of an ONNX file, its ranges from the first training images.

        ``activations`` is QInt8, its default, or QUInt8.

        Raises subprocess.CalledProcessError where it fails.
        """
        first = data.train.take(torch.arange(min(IMAGES, len(data.train))))
        chosen = next(batches(first, data, batch_size=IMAGES))[0].numpy()
        with tempfile.TemporaryDirectory() as scratch:
            paths = [Path(scratch, name) for name in ("dense.onnx", "images.npy", "int8.onnx")]
            paths[0].write_bytes(model)
            np.save(paths[1], chosen)
            words = [str(WORKER), *map(str, paths), activations]
            subprocess.run([str(self.python), "-I", *words], check=True)
            return paths[2].read_bytes()


def build(folder: Path) -> Quantizer:
    """Make the environment in ``folder``, or complete it.

    Raises subprocess.CalledProcessError where pip fails.
    """
    python = install(folder, ["onnxruntime", "onnx", "sympy"])
    code = "import onnxruntime; print(onnxruntime.__version__)"
    told = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return Quantizer(f"ONNX Runtime {told.stdout.strip()}", python)
