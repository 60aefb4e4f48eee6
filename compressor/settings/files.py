"""Settings of what is written, and of the data that is read."""

import math
import typing
from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.settings.checks import choice, integer, number, settle

EncodeProfile = typing.Literal["auto", "best", "fast", "huffman", "flat"]
Width = typing.Literal["fp16", "fp32"]
ENCODE_PROFILES = ("auto", "best", "fast", "huffman", "flat")
WIDTHS = ("fp16", "fp32")
EMITTED = ("onnx", "ort", "int8", "fp16")


@dataclass(frozen=True)
class Encode:
    """Stage 3 (section 4): relative indices, entropy codes, the ``.dcz`` artifact.

    ``width`` is what vectors are rounded to (biases, norm parameters and statistics, codebooks);
    weights that no stage shared stay fp32. ``biases`` over 0 rounds the biases of layers to so many
    bits instead, signed multiples of a step per layer. ``order`` sorts hidden units, which nobody
    sees from outside, by how many weights make them: that codes better. ``profile`` is what the
    storage of each tensor is chosen from: "best" is every mode, context mixing included, for the
    smallest file; "fast" leaves that out and decodes at memory speed; "auto" is "best" for networks
    below five million parameters, else "fast"; "huffman" is the paper's own storage; "flat" writes
    fixed-width codes, to see what entropy coding brings. ``graph`` false leaves the ONNX graph out.
    """

    width: Width = "fp16"
    biases: int = 0
    order: bool = False
    profile: EncodeProfile = "auto"
    graph: bool = True

    def __post_init__(self) -> None:
        choice("encode.width", self.width, WIDTHS)
        choice("encode.profile", self.profile, ENCODE_PROFILES)
        settle(self, biases=integer("encode.biases", self.biases, 0, 12))
        if self.biases == 1:
            raise UsageError("encode.biases is 1: a sign alone; give 2 to 12 bits, or 0")


@dataclass(frozen=True)
class Export:
    """Stage 4: the dense ONNX file and its check against PyTorch; other files made of it.

    ``tolerance`` is the largest difference allowed between ONNX Runtime and PyTorch, relative to
    the largest output; ``samples`` real inputs are compared (random ones where there is no data).
    ``emit`` names further files, each compared with the ONNX file and its accuracy measured in ONNX
    Runtime: "ort" is ONNX Runtime's own format, for its mobile and web builds; "int8" an INT8 QDQ
    file, its ranges from ``calibration`` training images; "fp16" a float16 one. "onnx" is written
    anyway, and has its accuracy measured there too where it is named.
    """

    opset: int = 18
    tolerance: float = 1e-5
    samples: int = 64
    emit: tuple[str, ...] = ()
    calibration: int = 256

    def __post_init__(self) -> None:
        for name in self.emit:
            choice("export.emit", name, EMITTED)
        settle(
            self,
            emit=tuple(name for name in EMITTED if name in self.emit),
            opset=integer("export.opset", self.opset, 18, 23),
            tolerance=number("export.tolerance", self.tolerance, 0.0, 1.0),
            samples=integer("export.samples", self.samples, 1, 4096),
            calibration=integer("export.calibration", self.calibration, 1, 1 << 20),
        )


@dataclass(frozen=True)
class DataSpec:
    """Which data set, and how its images are split and normalised.

    ``spec`` is a name (mnist, ...), a folder, an ``.npz`` file or ``file.py:make``;
    ``validation`` the fraction of the training images kept for choosing settings;
    ``mean`` and ``std`` per channel override the data set's own.
    """

    spec: str
    validation: float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        settle(self, validation=number("data.validation", self.validation, 0.0, 0.9))
        if self.mean is None and self.std is None:
            return
        if self.mean is None or self.std is None:
            raise UsageError("mean and std go together: give both or neither")
        settle(
            self,
            mean=tuple(number("data.mean", item, -math.inf, math.inf) for item in self.mean),
            std=tuple(number("data.std", item, 0.0, math.inf) for item in self.std),
        )
