"""NNCodec from our side: any dict of float32 arrays, coded and decoded at given settings."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from compressor.benchmarks.codec.rivals.environment import VERSION
from compressor.benchmarks.rivals import python_of

WORKER = Path(__file__).with_name("worker.py")

Floats = npt.NDArray[np.float32]
Tensors = Mapping[str, npt.NDArray[Any]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """NNCodec's own options by its own names; the defaults are its defaults.

    Attributes:
        qp: quantization parameter of weights (two dimensions or more): 2^``qp_density`` of them are
            an octave of the step.
        nonweight_qp: the same for all else.
        use_dq: trellis-coded (dependent) quantization.
        bnf: batch norm folded into a scale and a bias per channel.
        lambda_scale: rate term of the quantizer; 0 rounds to the nearest.
        row_skipping: rows of zeros cost one bit.
        opt_qp: another qp for each tensor, from its size and spread.
        cabac_unary_length_minus1: bits of a magnitude that are modelled one by one, less one; what
            is larger ends in an Exp-Golomb code.
    """

    qp: int = -38
    nonweight_qp: int = -75
    use_dq: bool = True
    bnf: bool = False
    lambda_scale: float = 0.0
    row_skipping: bool = False
    opt_qp: bool = False
    qp_density: int = 2
    cabac_unary_length_minus1: int = 10


@dataclass(frozen=True)
class Levels:
    """One tensor as NNCodec codes it: the decoded float32 are ``levels * step``, bit for bit."""

    levels: npt.NDArray[np.int32]
    step: np.float32

    def dense(self) -> Floats:
        return self.levels.astype(np.float32) * self.step


class NNCodec:
    """A process of NNCodec; use it in a ``with`` statement.

        with NNCodec(folder) as codec:
            codec.load(tensors)
            size = codec.encode(Settings(qp=-20))["bytes"]
            decoded = codec.decode()

    Raises RuntimeError where the process ends early; what it wrote to stderr is shown there.
    """

    version = VERSION

    def __init__(self, environment: Path) -> None:
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._scratch = tempfile.TemporaryDirectory()
        self._tensors = Path(self._scratch.name, "tensors.npz")
        self._process = subprocess.Popen(
            [str(python_of(environment)), "-I", str(WORKER)],  # -I: our nncodec.py is not theirs
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=variables,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> "NNCodec":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes stdin, at whose end the process ends
        self._scratch.cleanup()

    def load(self, tensors: Tensors) -> None:
        """Hand over what `encode` is to code; float32, batch norm found by its names."""
        arrays: Row = dict(tensors)
        np.savez(self._tensors, **arrays)
        self._ask(do="load", tensors=str(self._tensors), blocks=blocks(tensors))

    def encode(self, settings: Settings) -> Row:
        """Code the tensors; ``bytes`` of the bitstream and ``seconds``."""
        return self._ask(do="encode", settings=asdict(settings))

    def decode(self) -> dict[str, Floats]:
        """What the last bitstream decodes to; folded batch norm is undone by `unfolded`."""
        self._ask(do="decode", out=str(self._tensors))
        with np.load(self._tensors) as file:
            return unfolded({name: file[name] for name in file.files})

    def decode_seconds(self) -> float:
        """Seconds from the last bitstream to float32 arrays."""
        return float(self._ask(do="decode", out=None)["seconds"])

    def integers(self) -> dict[str, Levels]:
        """The integers that the last `encode` coded."""
        self._ask(do="integers", out=str(self._tensors))
        with np.load(self._tensors) as file:
            names = [key.removeprefix("levels/") for key in file.files if key.startswith("levels/")]
            return {
                name: Levels(file[f"levels/{name}"], np.float32(file[f"step/{name}"]))
                for name in names
            }

    def save(self, path: Path) -> None:
        """Write the last bitstream to a file."""
        self._ask(do="save", out=str(path.absolute()))

    def _ask(self, **request: Any) -> Row:
        stdin, stdout = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        stdin.write(json.dumps(request) + "\n")
        reply = stdout.readline()
        if not reply:
            raise RuntimeError(f"NNCodec's process ended during {request['do']}")
        row: Row = json.loads(reply)
        return row


def unfolded(decoded: Mapping[str, Floats]) -> dict[str, Floats]:
    """Tensors of the network as it was before NNCodec folded its batch norm.

    Folding scales the weights of ``P.conv1`` and leaves ``P.conv1.weight.bias``: a batch norm
    ``P.bn1`` with that bias, mean 0 and the rest 1 computes the same, but for its epsilon (1e-5).
    """
    tensors: dict[str, Floats] = {}
    for name, value in decoded.items():
        owner, folded, _ = name.rpartition(".weight.bias")
        if not folded:
            tensors[name] = value
            continue
        head, dot, last = owner.rpartition(".")
        norm = head + dot + last.replace("conv", "bn")
        tensors[f"{norm}.weight"] = tensors[f"{norm}.running_var"] = np.ones_like(value)
        tensors[f"{norm}.bias"], tensors[f"{norm}.running_mean"] = value, np.zeros_like(value)
    return tensors


def blocks(names: Iterable[str]) -> Row:
    """Which batch norm follows which convolution, in NNCodec's own form.

    Goes by names: ``P.bn1.running_mean`` belongs to ``P.conv1.weight``. Tensors of no such pair
    stand alone.
    """
    known = list(names)
    types = {"weight": "bn.gamma", "bias": "bn.beta"}
    types |= {"running_mean": "bn.mean", "running_var": "bn.var"}
    kind: dict[str, str] = {}
    block: dict[str, str] = {}
    for name in known:
        owner, _, leaf = name.rpartition(".")
        head, _, last = owner.rpartition(".")
        weight = f"{head}.".lstrip(".") + last.replace("bn", "conv") + ".weight"
        if last.startswith("bn") and f"{owner}.running_mean" in known and weight in known:
            kind[name], block[name] = types[leaf], weight
    for weight in set(block.values()):
        kind[weight], block[weight] = "weight", weight
    return {"parameter_type": kind, "block_identifier": block}
