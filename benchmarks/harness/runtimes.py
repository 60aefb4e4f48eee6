"""What runs a network: PyTorch (eager, compiled, as a CUDA graph) and ONNX Runtime.

Only worker processes use this module; torch and ONNX Runtime are imported by the runtime that needs
them, so that a process that runs ONNX Runtime never holds torch.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compressor.benchmarks.harness.inputs import Declared, shapes_of, values_of
from compressor.benchmarks.harness.names import RUNTIMES
from compressor.benchmarks.harness.subjects import Subject
from compressor.errors import CompressorError, LoadError, UsageError
from compressor.examples import one_image


class Unavailable(CompressorError):
    """A runtime that is not here, or that has no way to run this kind of file."""


class Runtime(ABC):
    """A loaded network. ``prepare`` before the rest; it may be called again."""

    @abstractmethod
    def prepare(self, batch: int, threads: int) -> None:
        """Get ready for inputs of this batch and this number of CPU threads."""

    @abstractmethod
    def call(self) -> Any:
        """One inference of the prepared input, finished when it returns."""

    @abstractmethod
    def arrays(self, outputs: Any) -> list[Any]:
        """What ``call`` returned as NumPy arrays."""

    @abstractmethod
    def feed(self, images: Any) -> None:
        """Put images (B, ...) float32 in place of the prepared input."""

    def time(self) -> int:
        """Nanoseconds of one call."""
        begin = time.perf_counter_ns()
        self.call()
        return time.perf_counter_ns() - begin


def open_runtime(name: str, subject: Subject, device: str) -> Runtime:
    """Load ``subject`` into the runtime ``name`` (one of ``names.RUNTIMES``).

    Raises :class:`Unavailable` where it cannot run here, and what loading raises.
    """
    if name not in RUNTIMES:
        raise UsageError(f"--runtime {name}: there are {', '.join(RUNTIMES)}")
    if name == "ort":
        return OnnxRuntime(subject, device)
    plain, _, dtype = name.partition("-")
    return TorchRuntime(subject, device, plain, half=dtype == "fp16")


# ---- ONNX Runtime ------------------------------------------------------------------------------


def model_bytes(subject: Subject) -> bytes:
    """The file as ONNX Runtime takes it; an artifact is decoded."""
    if subject.kind == "dcz":
        from compressor import artifact, unpacking

        return unpacking.onnx_bytes(artifact.read(subject.path))
    if subject.kind == "checkpoint":
        raise Unavailable("a checkpoint has no graph: it is exported first")
    return Path(subject.path).read_bytes()


def open_session(
    model: bytes, threads: int, device: str = "cpu", change: Callable[[Any], None] | None = None
) -> Any:
    """A session; ``change`` may set further options. Raises :class:`Unavailable`, LoadError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings are about its own choices
    if change is not None:
        change(options)
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise Unavailable(
                "this ONNX Runtime has no CUDA provider: install onnxruntime-gpu in its place"
            )
        number = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        if "external" in str(error).lower():
            raise LoadError(
                "it keeps its weights in a file beside it, as networks over 2 GB do: only whole "
                "files are measured"
            ) from None
        raise LoadError(f"ONNX Runtime cannot load it: {first_line(error)}") from None


def declared_inputs(session: Any) -> list[Declared]:
    return [Declared(item.name, tuple(item.shape), item.type) for item in session.get_inputs()]


class OnnxRuntime(Runtime):
    """A session, made anew where the number of threads changes."""

    def __init__(self, subject: Subject, device: str) -> None:
        self.subject, self.device = subject, device
        self.model = model_bytes(subject)
        self.session: Any = None
        self.threads = 0

    def prepare(self, batch: int, threads: int) -> None:
        if threads != self.threads:
            self.session = None  # its memory goes before the next one's is taken
            self.session = open_session(self.model, threads, self.device)
            self.threads = threads
        declared = declared_inputs(self.session)
        self.inputs = values_of(declared, shapes_of(declared, self.subject.shapes, batch))

    def call(self) -> Any:
        try:
            return self.session.run(None, self.inputs)
        except Exception as error:  # see open_session
            raise LoadError(f"ONNX Runtime cannot run it: {first_line(error)}") from None

    def arrays(self, outputs: Any) -> list[Any]:
        return [np.asarray(each) for each in outputs]

    def feed(self, images: Any) -> None:
        declared = declared_inputs(self.session)
        if len(declared) != 1:
            raise UsageError("accuracy is measured of networks with one input")
        self.inputs = {declared[0].name: images}


def first_line(error: Exception) -> str:
    """What an exception says first; the rest is its own stack."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


# ---- PyTorch -----------------------------------------------------------------------------------


def load_module(subject: Subject) -> tuple[Any, tuple[int, ...]]:
    """(module in evaluation mode, shape of one input without the batch)."""
    from compressor import api

    if subject.kind in ("onnx", "ort"):
        raise Unavailable(f"a .{subject.kind} file has no PyTorch module: give --runtime ort")
    if subject.kind == "dcz":
        from compressor import artifact

        module = api.load(subject.path, arch=subject.arch, input_shape=subject.one_shape)
        shape = subject.one_shape or _artifact_shape(artifact.read(subject.path))
        return module, shape
    network = load_checkpoint(subject)
    return network.module, tuple(one_image(network.example).shape[1:])


def load_checkpoint(subject: Subject) -> Any:
    """The :class:`Network` of a checkpoint. Raises LoadError, UsageError for several inputs."""
    from compressor import loading

    several = "a network of several inputs is measured as an .onnx file, with --input-shape NAME:1,"
    if len(subject.shapes) > 1:
        raise UsageError(f"{several}... for each")
    try:
        return loading.load(
            subject.path,
            arch=subject.arch,
            input_shape=subject.one_shape,
            trust_pickle=subject.trust_pickle,
        )
    except LoadError as error:
        if "required positional argument" not in str(error):
            raise
        raise LoadError(f"{error}; {several}... for each") from None


def _artifact_shape(artifact: Any) -> tuple[int, ...]:
    from compressor import unpacking

    shape = None if artifact.graph is None else unpacking.input_shape(artifact)
    if shape is None:
        raise LoadError("the artifact does not tell its input's size: add --input-shape 1,C,H,W")
    return shape


class TorchRuntime(Runtime):
    """A module on a device: as it is, compiled, or as a CUDA graph; float32 or float16."""

    def __init__(self, subject: Subject, device: str, way: str, half: bool) -> None:
        import torch

        self.torch, self.device, self.way = torch, torch.device(device), way
        self.cuda = self.device.type == "cuda"
        if self.cuda and not torch.cuda.is_available():
            raise Unavailable("--device cuda: PyTorch finds no CUDA device here; give --device cpu")
        if way == "graphs" and not self.cuda:
            raise Unavailable("CUDA graphs need --device cuda")
        self.dtype = torch.float16 if half else torch.float32
        module, self.shape = load_module(subject)
        self.module = module.to(self.device, self.dtype)
        self.run: Any = torch.compile(self.module) if way == "compile" else self.module

    def prepare(self, batch: int, threads: int) -> None:
        self.torch.set_num_threads(threads)
        draw = np.random.default_rng(0)
        self.feed(draw.standard_normal((batch, *self.shape)).astype(np.float32))
        if self.way == "graphs":
            self._record()

    def feed(self, images: Any) -> None:
        self.x = self.torch.from_numpy(images).to(self.device, self.dtype)
        if self.cuda:
            self.torch.cuda.synchronize(self.device)

    def call(self) -> Any:
        with self.torch.inference_mode():
            outputs = self._replay() if self.way == "graphs" else self.run(self.x)
        if self.cuda:
            self.torch.cuda.synchronize(self.device)
        return outputs

    def time(self) -> int:
        """By the GPU's own clock where there is one: from the first kernel to the last."""
        if not self.cuda:
            return super().time()
        event: Any = self.torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        with self.torch.inference_mode(), self.torch.cuda.device(self.device):
            begin.record()
            if self.way == "graphs":
                self._replay()
            else:
                self.run(self.x)
            end.record()
        end.synchronize()
        return round(1e6 * float(begin.elapsed_time(end)))

    def arrays(self, outputs: Any) -> list[Any]:
        items = outputs if isinstance(outputs, tuple | list) else [outputs]
        return [item.float().cpu().numpy() for item in items]

    def _record(self) -> None:
        """Capture one call; the warm-up on a side stream is what capturing asks for."""
        torch = self.torch
        self.graph: Any = None
        with torch.inference_mode(), torch.cuda.device(self.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self.module(self.x)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.recorded = self.module(self.x)

    def _replay(self) -> Any:
        self.graph.replay()
        return self.recorded
