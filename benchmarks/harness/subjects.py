"""What can be measured: a file, what kind it is, and what it is called in the tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.errors import LoadError

CHECKPOINTS = (".pt", ".pth", ".th", ".ckpt", ".pt2", ".safetensors")
KINDS = {**dict.fromkeys(CHECKPOINTS, "checkpoint"), ".onnx": "onnx", ".dcz": "dcz", ".ort": "ort"}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """One file to measure.

    ``kind`` is one of ``KINDS``; ``arch`` tells the class of a checkpoint; ``shapes`` are those of
    the inputs that were given, batch of 1 first, the name "" standing for the only one.
    """

    path: str
    kind: str
    label: str
    arch: str | None = None
    shapes: tuple[tuple[str, Shape], ...] = ()
    trust_pickle: bool = False

    def row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Subject":
        shapes = tuple((name, tuple(shape)) for name, shape in row["shapes"])
        return cls(**{**row, "shapes": shapes})

    @property
    def one_shape(self) -> Shape | None:
        """The shape of the only input, without the batch, as the loader takes it."""
        return self.shapes[0][1][1:] if len(self.shapes) == 1 else None


def subjects(
    paths: Sequence[Path],
    arch: str | None = None,
    shapes: tuple[tuple[str, Shape], ...] = (),
    trust_pickle: bool = False,
) -> list[Subject]:
    """One subject a path, each with a label of its own. Raises :class:`LoadError`."""
    found = []
    seen: Counter[str] = Counter()
    names = Counter(path.name for path in set(paths))
    for path in paths:
        kind = KINDS.get(path.suffix)
        if kind is None:
            raise LoadError(f"{path}: the name must end in {', '.join(KINDS)}")
        if not path.is_file():
            raise LoadError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
        label = path.name if names[path.name] == 1 else str(path)
        seen[label] += 1
        label += f" #{seen[label]}" if seen[label] > 1 else ""
        found.append(Subject(str(path), kind, label, arch, shapes, trust_pickle))
    return found
