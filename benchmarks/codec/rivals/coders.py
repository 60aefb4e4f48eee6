"""Everything that the speed benchmark times, in one form: levels in, bytes out, float32 back.

A tensor is int levels of -15 to 15 and a step of 2^-6, so that float16 and NNCodec's grid hold its
weights exactly, and every coder must give them back bit for bit.
"""

import time
from abc import ABC, abstractmethod
from typing import Any

import bitarray.util as bits
import constriction
import numpy as np
import numpy.typing as npt
import zstandard
from bitarray import bitarray

from compressor.artifact import decode, encode
from compressor.benchmarks.codec.profiles import as_shared
from compressor.benchmarks.codec.rivals import textbook
from compressor.benchmarks.codec.rivals.nncodec import NNCodec, Settings

STEP = np.float32(2.0**-6)
STEP_QP = -24  # NNCodec's quantization parameter for that step
LARGEST = 15
TABLE = (np.arange(-LARGEST, LARGEST + 1) * STEP).astype(np.float32)

Levels = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


class Coder(ABC):
    """One way to write a tensor. `encode` and `decode` return seconds and keep their result.

    ``limit`` bounds the weights it is given, for what would take minutes otherwise.
    """

    limit: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.blob: Any = b""
        self.weights: Floats = np.zeros(0, dtype=np.float32)

    @property
    def bytes(self) -> int:
        return len(self.blob)

    def load(self, levels: Levels) -> None:
        """Take the tensor; nothing here is timed."""
        self.levels = levels
        self.symbols = (levels.reshape(-1) + LARGEST).astype(np.uint8)
        self.expected = TABLE[self.symbols].reshape(levels.shape)

    def encode(self) -> float:
        start = time.perf_counter()
        self.blob = self.packed()
        return time.perf_counter() - start

    def decode(self) -> float:
        start = time.perf_counter()
        self.weights = self.unpacked()
        return time.perf_counter() - start

    def check(self) -> None:
        """Raise RuntimeError unless the last `decode` gave the tensor."""
        if self.weights.tobytes() != self.expected.tobytes():
            raise RuntimeError(f"{self.name} does not give the weights back")

    @abstractmethod
    def packed(self) -> Any: ...

    @abstractmethod
    def unpacked(self) -> Floats: ...


class Ours(Coder):
    """A whole .dcz file, checksums and all. From `Shared` (indices and codebook) to bytes."""

    def __init__(self, profile: str, settings: dict[str, Any]) -> None:
        super().__init__(f"ours, {profile}")
        self.settings = settings

    def load(self, levels: Levels) -> None:
        super().load(levels)
        self.shared = as_shared(levels.astype(np.int32), STEP)

    def packed(self) -> Any:
        return encode({"weight": self.shared}, **self.settings)

    def unpacked(self) -> Floats:
        return decode(self.blob).tensors()["weight"]


class Nncodec(Coder):
    """NNCodec's whole bitstream, timed inside its process; from float32, which it quantizes."""

    def __init__(self, codec: NNCodec) -> None:
        super().__init__("NNCodec")
        self.codec = codec
        self.size = 0

    @property
    def bytes(self) -> int:
        return self.size

    def load(self, levels: Levels) -> None:
        super().load(levels)
        self.codec.load({"weight": self.expected})

    def packed(self) -> Any:
        raise NotImplementedError

    def unpacked(self) -> Floats:
        return self.codec.decode()["weight"]

    def encode(self) -> float:
        reply = self.codec.encode(Settings(qp=STEP_QP, use_dq=False, row_skipping=True))
        self.size = reply["bytes"]
        return float(reply["seconds"])

    def decode(self) -> float:
        return self.codec.decode_seconds()

    def check(self) -> None:
        self.weights = self.unpacked()
        super().check()


class ZstdHalf(Coder):
    """The weights as float16, in one zstd frame."""

    def __init__(self, level: int) -> None:
        super().__init__(f"zstd -{level} of fp16")
        self.level = level

    def packed(self) -> Any:
        return zstandard.compress(self.expected.astype(np.float16).tobytes(), self.level)

    def unpacked(self) -> Floats:
        halves = np.frombuffer(zstandard.decompress(self.blob), dtype=np.float16)
        return halves.astype(np.float32).reshape(self.levels.shape)


class ZstdIndices(Coder):
    """The indices as bytes, in one zstd frame; then a table look-up."""

    def __init__(self, level: int) -> None:
        super().__init__(f"zstd -{level} of indices")
        self.level = level

    def packed(self) -> Any:
        return zstandard.compress(self.symbols.tobytes(), self.level)

    def unpacked(self) -> Floats:
        symbols = np.frombuffer(zstandard.decompress(self.blob), dtype=np.uint8)
        return TABLE[symbols].reshape(self.levels.shape)


class Constriction(Coder):
    """constriction's ANS coder with one categorical model of all weights."""

    def __init__(self) -> None:
        super().__init__("constriction ANS")

    def load(self, levels: Levels) -> None:
        super().load(levels)
        counts = np.bincount(self.symbols, minlength=len(TABLE)).astype(np.float64)
        self.probabilities = counts / counts.sum()

    def model(self) -> Any:
        return constriction.stream.model.Categorical(self.probabilities, perfect=False)

    def packed(self) -> Any:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(self.symbols.astype(np.int32), self.model())
        return coder.get_compressed().tobytes()

    def unpacked(self) -> Floats:
        words = np.frombuffer(self.blob, dtype=np.uint32)
        coder = constriction.stream.stack.AnsCoder(words)
        symbols: npt.NDArray[np.int32] = coder.decode(self.model(), self.symbols.size)
        return TABLE[symbols].reshape(self.levels.shape)


class Bitarray(Coder):
    """bitarray's canonical Huffman code, decoded by its C iterator."""

    def __init__(self) -> None:
        super().__init__("bitarray, canonical Huffman")

    def packed(self) -> Any:
        symbols, counts = np.unique(self.symbols, return_counts=True)
        frequencies = dict(zip(symbols.tolist(), counts.tolist(), strict=True))
        code, self.lengths, self.order = bits.canonical_huffman(frequencies)
        stream = bitarray()
        stream.encode(code, self.symbols.tolist())
        self.count = len(stream)
        return stream.tobytes()

    def unpacked(self) -> Floats:
        stream = bitarray(self.blob)[: self.count]
        symbols = list(bits.canonical_decode(stream, self.lengths, self.order))
        return TABLE[symbols].reshape(self.levels.shape)


class Naive(Coder):
    """Bit strings and a dictionary tree, as public scripts of the paper have it: `textbook`."""

    limit = 200_000

    def __init__(self) -> None:
        super().__init__("naive script")

    def load(self, levels: Levels) -> None:
        super().load(levels)
        self.shared = as_shared(levels.astype(np.int32), STEP)

    @property
    def bytes(self) -> int:
        return len(self.blob.data)

    def packed(self) -> Any:
        return textbook.pack(self.shared.indices, self.shared.codebook)

    def unpacked(self) -> Floats:
        return textbook.unpack(self.blob)
