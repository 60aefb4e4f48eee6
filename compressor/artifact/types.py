"""What goes into an artifact and what is known of it: plain records, no behaviour."""

import enum
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.errors import ArtifactError

Profile = Literal["best", "fast", "huffman", "flat"]
"""What a writer chooses from: all modes; those that decode fastest; the paper's own; codes of fixed
width."""
PROFILES: tuple[Profile, ...] = ("best", "fast", "huffman", "flat")

MAX_CODEBOOK = 1 << 16
"""Most entries of a codebook."""
HALF_FLAG = 16
"""Bit of the width byte: codebook (shared modes) or values (GAP_FLOAT) are float16."""
GRID_FLAG = 32
"""Bit of the width byte: the codebook is a grid, whole multiples of one step."""
BLOCK = 1 << 17
"""Weights handled at once where a whole tensor's worth of scratch would be too much."""

DTYPES = tuple(
    np.dtype(name)
    for name in (
        *("<f4", "<f2", "<f8", "?"),
        *("<i1", "<i2", "<i4", "<i8"),
        *("<u1", "<u2", "<u4", "<u8"),
    )
)
"""Element types by their code in the file."""


def index_dtype(codebook_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest unsigned type, little-endian, for indices 0 to ``codebook_size``."""
    width = 1 if codebook_size < 1 << 8 else 2 if codebook_size < 1 << 16 else 4
    return np.dtype(f"<u{width}")


class Mode(enum.IntEnum):
    """How a tensor's payload is written; `docs/format.md` has the layouts."""

    RAW = 0
    FP16 = 1
    GAP_SHARED = 2
    GAP_FLOAT = 3
    GAP_RANS = 4
    DENSE_RANS = 5
    CONTEXT = 6
    PACKED = 7

    @property
    def coded(self) -> bool:
        """Whether the payload is entropy-coded, so that what it decodes to has a checksum."""
        return self not in (Mode.RAW, Mode.FP16)

    @property
    def shared(self) -> bool:
        """Whether the payload holds a codebook and indices."""
        return self in (Mode.GAP_SHARED, Mode.GAP_RANS, Mode.DENSE_RANS, Mode.CONTEXT)


@dataclass(frozen=True, eq=False)
class Shared:
    """A tensor whose weights share a codebook (Deep Compression, section 3).

    Attributes:
        indices: unsigned integers of the tensor's shape; 0 is a pruned weight, +0.0, and i > 0
            stands for ``codebook[i - 1]``.
        codebook: (k,) float32, k at most 65,536; its order and unused entries are kept.
    """

    indices: npt.NDArray[np.unsignedinteger[Any]]
    codebook: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.indices.dtype.kind != "u":
            raise ArtifactError(f"shared indices are {self.indices.dtype}; make them unsigned")
        if self.codebook.dtype != np.float32 or self.codebook.ndim != 1:
            raise ArtifactError(
                f"a codebook is {self.codebook.dtype} of shape {self.codebook.shape}; "
                "make it float32 of shape (k,)"
            )
        if len(self.codebook) > MAX_CODEBOOK:
            raise ArtifactError(
                f"a codebook has {len(self.codebook)} entries; {MAX_CODEBOOK} are the most"
            )
        if self.indices.size and int(self.indices.max()) > len(self.codebook):
            raise ArtifactError(
                f"shared index {self.indices.max()} points past a codebook of "
                f"{len(self.codebook)} entries"
            )

    def dense(self) -> npt.NDArray[np.float32]:
        """Return the weights, float32, in the tensor's shape."""
        table = np.concatenate([np.zeros(1, dtype=np.float32), self.codebook])
        flat = self.indices.reshape(-1)
        out = np.empty(flat.shape, dtype=np.float32)
        for start in range(0, len(flat), BLOCK):
            out[start : start + BLOCK] = table[flat[start : start + BLOCK]]
        return out.reshape(self.indices.shape)


class Limits(NamedTuple):
    """What a reader accepts, checked before memory is taken; a file declaring more is refused.

    Attributes:
        max_tensor_bytes: one decoded tensor (dimensions of 0 count as 1).
        max_total_bytes: all decoded tensors together.
        max_tensors: number of tensors.
        max_graph_bytes: the graph section, inflated.
    """

    max_tensor_bytes: int = 4 << 30
    max_total_bytes: int = 4 << 30
    max_tensors: int = 1 << 16
    max_graph_bytes: int = 256 << 20


class Parts(NamedTuple):
    """Bytes of a payload by what they hold; they add up to the payload.

    ``values`` are codebook indices or weights, ``gaps`` positions (in the modes that have one
    stream for both they are among the values), ``tables`` the code or frequency tables
    and classes, ``codebook`` the centroids, ``other`` counts and flags.
    """

    values: int = 0
    gaps: int = 0
    tables: int = 0
    codebook: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.values + self.gaps + self.tables + self.codebook + self.other


class Entry(NamedTuple):
    """One tensor of an artifact, for `compress inspect`.

    Attributes:
        nonzero: weights that are not zero (with a codebook: indices that are not 0).
        bytes: length of the payload; ``parts`` says what they hold.
        gap_width: bits of a gap, ``None`` in modes without gaps.
        fillers: entries that only bridge a run of zeros too long for one gap.
        codebook_size: number of centroids, ``None`` where weights are not shared.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    mode: Mode
    elements: int
    nonzero: int
    bytes: int
    parts: Parts
    gap_width: int | None = None
    fillers: int = 0
    codebook_size: int | None = None

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are zero; 0 for an empty tensor."""
        return 1 - self.nonzero / self.elements if self.elements else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Payload bits over all weights, zeros included; 0 for an empty tensor."""
        return 8 * self.bytes / self.elements if self.elements else 0.0
