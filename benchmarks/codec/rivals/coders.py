"""Everything that the speed benchmark times, in one form: levels in, bytes out, float32 back.

Levels of the two tensors are -15 to 15 and the step is 2^-5, so that float16 and NNCodec's grid
hold the weights exactly, and every coder must give them back bit for bit.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import bitarray.util as bits
import constriction
import numpy as np
import numpy.typing as npt
import zstandard
from bitarray import bitarray

from compressor.artifact import decode, encode
from compressor.benchmarks.codec.profiles import as_shared, as_tensors
from compressor.benchmarks.codec.rivals import textbook
from compressor.benchmarks.codec.rivals.nncodec import Levels, NNCodec, Settings
from compressor.coding import native

QP = -20
STEP = np.float32(2.0**-5)  # of that qp
LARGEST = 15
TABLE = (np.arange(-LARGEST, LARGEST + 1) * STEP).astype(np.float32)

SETTINGS = Settings(qp=QP, nonweight_qp=-40, use_dq=False, row_skipping=True)
"""Steps that are powers of two, so that coding decoded weights again finds the same levels."""

Floats = npt.NDArray[np.float32]


class Coder(ABC):
    """One way to write tensors. `encode` and `decode` return seconds and keep their result."""

    name: str
    bytes: int
    weights: int

    @abstractmethod
    def load(self, network: Mapping[str, Levels]) -> None:
        """Take the tensors; nothing here is timed."""

    @abstractmethod
    def encode(self) -> float: ...

    @abstractmethod
    def decode(self) -> float: ...

    @abstractmethod
    def decoded(self) -> dict[str, Floats]:
        """What the last `decode` gave."""

    def check(self, network: Mapping[str, Levels]) -> None:
        """Raise RuntimeError unless the last `decode` gave the tensors."""
        for name, found in self.decoded().items():
            if found.tobytes() != network[name].dense()[: len(found)].tobytes():
                raise RuntimeError(f"{self.name} does not give {name} back")


class Ours(Coder):
    """A whole .dcz file, checksums and all. From `Shared` (indices and codebook) to bytes."""

    def __init__(
        self, profile: str, settings: dict[str, Any], backend: str = "", threads: int = 1
    ) -> None:
        self.name = f"ours, {profile}"
        if backend:
            self.name += f", {backend}"
        if threads > 1:
            self.name += f", {threads} threads"
        self.settings = settings
        self.backend, self.threads = backend, threads

    def load(self, network: Mapping[str, Levels]) -> None:
        self.tensors = as_tensors(network)
        self.weights = sum(tensor.levels.size for tensor in network.values())

    def encode(self) -> float:
        with self.chosen():
            start = time.perf_counter()
            self.blob = encode(self.tensors, **self.settings)
            seconds = time.perf_counter() - start
        self.bytes = len(self.blob)
        return seconds

    def decode(self) -> float:
        with self.chosen():
            start = time.perf_counter()
            self.found = decode(self.blob, threads=self.threads).tensors()
            return time.perf_counter() - start

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Let the backend do the work."""
        before = os.environ.get(native.VARIABLE, "")
        os.environ[native.VARIABLE] = self.backend
        try:
            yield
        finally:
            os.environ[native.VARIABLE] = before

    def decoded(self) -> dict[str, Floats]:
        return self.found


class Nncodec(Coder):
    """NNCodec's whole bitstream, timed inside its process; from float32, which it quantizes."""

    name = "NNCodec"

    def __init__(self, codec: NNCodec) -> None:
        self.codec = codec

    def load(self, network: Mapping[str, Levels]) -> None:
        self.codec.load({name: tensor.dense() for name, tensor in network.items()})
        self.weights = sum(tensor.levels.size for tensor in network.values())

    def encode(self) -> float:
        reply = self.codec.encode(SETTINGS)
        self.bytes = reply["bytes"]
        return float(reply["seconds"])

    def decode(self) -> float:
        return self.codec.decode_seconds()

    def decoded(self) -> dict[str, Floats]:
        return self.codec.decode()


class Single(Coder):
    """A coder of one tensor: symbols 0 to 30, or float16; `unpacked` ends at float32.

    ``limit`` bounds the weights, for what would take minutes otherwise: the first rows are coded.
    """

    limit: int | None = None
    blob: Any

    def load(self, network: Mapping[str, Levels]) -> None:
        ((self.tensor, whole),) = network.items()
        levels = whole.levels
        self.levels = levels if self.limit is None else levels[: self.limit // levels.shape[1]]
        self.symbols = (self.levels.reshape(-1) + LARGEST).astype(np.uint8)
        self.weights = self.levels.size

    def encode(self) -> float:
        start = time.perf_counter()
        self.blob = self.packed()
        seconds = time.perf_counter() - start
        self.bytes = len(self.blob)
        return seconds

    def decode(self) -> float:
        start = time.perf_counter()
        self.found = self.unpacked().reshape(self.levels.shape)
        return time.perf_counter() - start

    def decoded(self) -> dict[str, Floats]:
        return {self.tensor: self.found}

    @abstractmethod
    def packed(self) -> Any: ...

    @abstractmethod
    def unpacked(self) -> Floats: ...


class ZstdHalf(Single):
    """The weights as float16, in one zstd frame."""

    def __init__(self, level: int) -> None:
        self.name = f"zstd -{level} of fp16"
        self.level = level

    def load(self, network: Mapping[str, Levels]) -> None:
        super().load(network)
        self.floats = network[self.tensor].dense()

    def packed(self) -> Any:
        return zstandard.compress(self.floats.astype(np.float16).tobytes(), self.level)

    def unpacked(self) -> Floats:
        halves = np.frombuffer(zstandard.decompress(self.blob), dtype=np.float16)
        return halves.astype(np.float32)


class ZstdIndices(Single):
    """The indices as bytes, in one zstd frame; then a table look-up."""

    def __init__(self, level: int) -> None:
        self.name = f"zstd -{level} of indices"
        self.level = level

    def packed(self) -> Any:
        return zstandard.compress(self.symbols.tobytes(), self.level)

    def unpacked(self) -> Floats:
        return TABLE[np.frombuffer(zstandard.decompress(self.blob), dtype=np.uint8)]


class Constriction(Single):
    """constriction's ANS coder with one categorical model of all weights."""

    name = "constriction ANS"

    def load(self, network: Mapping[str, Levels]) -> None:
        super().load(network)
        counts = np.bincount(self.symbols, minlength=len(TABLE)).astype(np.float64)
        self.model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)

    def packed(self) -> Any:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(self.symbols.astype(np.int32), self.model)
        return coder.get_compressed().tobytes()

    def unpacked(self) -> Floats:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(self.blob, dtype=np.uint32))
        symbols: npt.NDArray[np.int32] = coder.decode(self.model, self.symbols.size)
        return TABLE[symbols]


class Bitarray(Single):
    """bitarray's canonical Huffman code, decoded by its C iterator."""

    name = "bitarray, canonical Huffman"

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
        return TABLE[list(bits.canonical_decode(stream, self.lengths, self.order))]


class Naive(Single):
    """Bit strings and a dictionary tree, as public scripts of the paper have it: `textbook`."""

    name = "naive script"
    limit = 200_000

    def load(self, network: Mapping[str, Levels]) -> None:
        super().load(network)
        self.shared = as_shared(self.levels, STEP)

    def packed(self) -> Any:
        return textbook.pack(self.shared.indices, self.shared.codebook)

    def unpacked(self) -> Floats:
        return textbook.unpack(self.blob)
