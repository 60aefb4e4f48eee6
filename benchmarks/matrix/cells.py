"""What becomes of one network in one form: each output, beside the run's ONNX file.

The run itself has compared that file with torch. Every output is loaded and run in its own runtime.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.benchmarks.matrix.forms import FORMS
from compressor.benchmarks.matrix.networks import network
from compressor.export.optional import NOT_MADE, SUFFIXES
from compressor.tracing import quiet

KINDS = {".ort": "ort", "fp16": "fp16", "INT8": "int8"}
FILES = {key: SUFFIXES[kind] for key, kind in KINDS.items()}
"""The further outputs: what ``--emit`` calls them, and what the names of their files end in."""
MISSED = 3
"""The exit code of a run that could not make one of them."""

Json = dict[str, Any]
Shape = tuple[int, ...]


def cells(name: str, form: str, folder: Path) -> Json:
    """Output -> largest difference, relative to the largest answer, or a text: what failed."""
    module, shape, arch = network(name)
    suffix, save = FORMS[form]
    source = folder / f"net.{suffix}"
    try:
        with quiet():
            save(module, torch.randn(1, *shape), source)
    except Exception as error:  # an exporter's own, not this tool's
        return {"saved": f"the exporter fails: {_first(error)}"}
    given = ["--arch", arch] if form in ("state_dict", "safetensors") else []
    given += ["--trust-pickle"] if form == "pickled module" else []
    if suffix not in ("onnx", "pt2"):
        given += ["--input-shape", ",".join(map(str, (1, *shape)))]
    settings = ["--sparsity", "0.5", "--quantize", "5bit", "--threads", "1", "-q"]
    settings += _calibration(module, shape, folder) or ["--emit", "onnx,ort,fp16"]
    done = _compress("run", str(source), *given, *settings, "-o", str(folder / "out"))
    if done.returncode not in (0, MISSED):
        said = done.stderr.strip().splitlines()[-1].replace(f"{folder}{os.sep}", "")
        return {"run": said[:300]}
    named = arch if form in ("state_dict", "safetensors", "pickled module") else None
    found: Json = {key: _tried(check) for key, check in _outputs(folder, shape, named).items()}
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    gone = report["stages"]["export"].get(NOT_MADE, {})
    return found | {key: gone[kind] for key, kind in KINDS.items() if kind in gone}


def _calibration(module: nn.Module, shape: Shape, folder: Path) -> list[str]:
    """Images to calibrate INT8 with, for networks that classify images."""
    with torch.no_grad():
        output = module(torch.zeros(1, *shape))
    if len(shape) != 3 or output.ndim != 2:
        return []
    x = np.random.default_rng(0).standard_normal((10, *shape)).astype(np.float32)
    y = np.arange(10) % min(10, output.shape[1])
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    emit = ["--emit", "onnx,ort,fp16,int8"]
    return ["--data", str(folder / "data.npz"), "--epochs", "0", "--finetune-epochs", "0", *emit]


def _outputs(folder: Path, shape: Shape, arch: str | None) -> dict[str, Callable[[], float]]:
    import compressor

    out = folder / "out"
    dcz = out / "net.dcz"
    x = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    expected = _answer(out / "net.onnx", x)

    def onnx() -> float:
        back = _decompressed(dcz, folder / "back.onnx").read_bytes()
        return 0.0 if back == (out / "net.onnx").read_bytes() else 1.0

    def pt() -> float:
        return _apart(dcz, torch.load(_decompressed(dcz, folder / "back.pt"), weights_only=True))

    def safetensors() -> float:
        from safetensors.torch import load_file

        return _apart(dcz, load_file(_decompressed(dcz, folder / "back.safetensors")))

    def session() -> float:
        runtime = compressor.session(dcz)
        return _gap(expected, runtime.run(None, {runtime.get_inputs()[0].name: x})[0])

    def module() -> float:
        loaded = compressor.load(dcz, arch=arch, input_shape=shape)
        with torch.no_grad():
            return _gap(expected, loaded(torch.from_numpy(x)).numpy())

    return {
        ".onnx": onnx,
        ".pt": pt,
        ".safetensors": safetensors,
        "session": session,
        "module": module,
        **{
            key: lambda path=out / f"net.{ending}": _gap(expected, _answer(path, x))  # type: ignore[misc]
            for key, ending in FILES.items()
            if (out / f"net.{ending}").exists()
        },
    }


def _decompressed(dcz: Path, target: Path) -> Path:
    done = _compress("decompress", str(dcz), "-o", str(target))
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return target


def _apart(dcz: Path, state: dict[str, torch.Tensor]) -> float:
    """The largest difference of any tensor from the artifact's own; none may be missing."""
    import compressor

    arrays = compressor.arrays(dcz)
    if arrays.keys() - state.keys():
        raise RuntimeError(f"{min(arrays.keys() - state.keys())} is missing")
    return max(float(np.abs(state[name].numpy() - array).max()) for name, array in arrays.items())


def _tried(check: Callable[[], float]) -> float | str:
    try:
        return check()
    except Exception as error:  # whatever a cell meets goes into the table
        return f"{type(error).__name__}: {_first(error)}"


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


def _gap(expected: Any, found: Any) -> float:
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12))


def _answer(path: Path, x: Any) -> Any:
    import onnxruntime

    runtime = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return runtime.run(None, {runtime.get_inputs()[0].name: x})[0]


def _compress(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "compressor", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
