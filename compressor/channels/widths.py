"""Widths that the hardware likes: how long convolutions take, as a function of their channels.

Runtimes compute channels in blocks, so that time goes up in stairs (of 16 with AVX-512, while
WebAssembly's are hardly seen): a width is *wasteful* where a wider one takes no longer. The *step*
of a profile is the smallest number of whose multiples none is wasteful.
"""

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compressor.export.verify import session
from compressor.progress import Progress

STEPS = (1, 4, 8, 16, 32)
SHAPES = ((3, 64, 28), (1, 64, 28), (3, 128, 14), (1, 256, 14))
"""Convolutions looked at: kernel, input channels, height and width of the image."""

WIDTHS = (32, 33, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80, 88, 96)
MARGIN, TOLERANCE = 0.08, 0.04
"""How much wider a width must be, and how little longer it may take, for it to be free."""

_ROUNDS = 40


@dataclass(frozen=True)
class Curve:
    """Milliseconds (least of all calls) of one convolution at each of ``widths`` outputs."""

    kernel: int
    inputs: int
    size: int
    widths: tuple[int, ...]
    ms: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """Curves of one runtime on one machine."""

    runtime: str
    machine: str
    curves: tuple[Curve, ...]

    @property
    def step(self) -> int:
        """Widths should be multiples of this: the median of what the curves ask for."""
        return median_low([step_of(curve) for curve in self.curves])

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "step": self.step}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Profile":
        """Raises ``ValueError`` or ``KeyError`` for text that is no profile."""
        table = json.loads(text)
        curves = []
        for row in table["curves"]:
            kernel, inputs, size = (int(row[key]) for key in ("kernel", "inputs", "size"))
            times = tuple(map(float, row["ms"]))
            curves.append(Curve(kernel, inputs, size, tuple(map(int, row["widths"])), times))
        return cls(str(table["runtime"]), str(table["machine"]), tuple(curves))


def step_of(curve: Curve) -> int:
    """The smallest of :data:`STEPS` none of whose multiples is wasteful."""
    times = dict(zip(curve.widths, curve.ms, strict=True))

    def wasteful(width: int) -> bool:
        wider = [each for each in curve.widths if each >= width * (1 + MARGIN)]
        return bool(wider and times[wider[0]] < times[width] * (1 + TOLERANCE))

    for step in STEPS[:-1]:
        multiples = [width for width in curve.widths[:-1] if width % step == 0]
        if not any(map(wasteful, multiples)):
            return step
    return STEPS[-1]


def measure(
    progress: Progress | None = None, shapes: Sequence[tuple[int, int, int]] = SHAPES
) -> Profile:
    """Measure ONNX Runtime here, by one thread; takes about a second.

    All widths of a convolution take turns, so that whatever else the machine does meets all.
    """
    curves = []
    with (progress or Progress()).task("widths", len(shapes) * _ROUNDS) as advance:
        for kernel, inputs, size in shapes:
            runs = [_caller(kernel, inputs, width, size) for width in WIDTHS]
            best = [np.inf] * len(runs)
            for _ in range(_ROUNDS):
                for at, run in enumerate(runs):
                    begin = time.perf_counter()
                    run()
                    best[at] = min(best[at], 1e3 * (time.perf_counter() - begin))
                advance()
            curves.append(Curve(kernel, inputs, size, WIDTHS, tuple(round(ms, 5) for ms in best)))
    return Profile(f"ONNX Runtime {onnxruntime.__version__}", platform.machine(), tuple(curves))


def convolution(kernel: int, inputs: int, outputs: int, size: int) -> bytes:
    """An ONNX file: a convolution, its activation, and a 1x1 convolution that reads it.

    It takes ``x`` (1, inputs, size, size) float32.
    """
    draw = np.random.default_rng(0).standard_normal
    weights = {
        "w": draw((outputs, inputs, kernel, kernel)).astype(np.float32),
        "v": draw((16, outputs, 1, 1)).astype(np.float32),
    }
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, kernel_shape=[kernel, kernel]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Conv", ["z", "v"], ["out"], kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, size, size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 16, size, size])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    content: bytes = model.SerializeToString()
    return content


def _caller(kernel: int, inputs: int, outputs: int, size: int) -> Callable[[], Any]:
    runtime = session(convolution(kernel, inputs, outputs, size))
    x = np.random.default_rng(0).standard_normal((1, inputs, size, size)).astype(np.float32)
    return lambda: runtime.run(None, {"x": x})


def shipped() -> dict[str, Path]:
    """The profiles that come with the tool, by name."""
    folder = Path(__file__).parent / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def step_named(name: str, progress: Progress | None = None) -> int:
    """The step of a shipped profile, or with "auto" of this machine."""
    if name == "auto":
        return measure(progress).step
    known = shipped()
    return Profile.from_json(known[name].read_text(encoding="utf-8")).step
