"""The networks, each as .dcz and as the dense ONNX file that it decodes to.

LeNet-5 is the demo's own, trained. ResNet-20 and VGG-16 have random weights of one seed, pruned by
magnitude and shared linearly: how long a file takes follows from sizes, not from accuracy.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.artifact import Profile, Shared, encode, read
from compressor.artifact.types import index_dtype
from compressor.export import graph as graphs
from compressor.export.onnx import build
from compressor.loading import build as build_network
from compressor.storage import plain_state

OPSET, SEED = 18, 0
DEMO = Path(__file__).resolve().parents[2] / "edge" / "js" / "demo" / "lenet5.dcz"


@dataclass(frozen=True)
class Drawn:
    """A network of random weights: which, how, and how many images are one repeat's input."""

    arch: str
    shape: tuple[int, ...]
    sparsity: float
    profile: Profile


DRAWN = {
    "resnet20": Drawn("resnet20", (1, 3, 32, 32), 0.7, "best"),
    "vgg16": Drawn("torchvision:vgg16", (1, 3, 224, 224), 0.9, "fast"),
}
SHAPES = {"lenet5": (1, 1, 28, 28), **{name: drawn.shape for name, drawn in DRAWN.items()}}


def pattern(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An input that is the same everywhere: measure.mjs has the same formula."""
    count = int(np.prod(shape))
    flat = (np.arange(count, dtype=np.int64) * 37 % 101).astype(np.float32) / np.float32(50)
    return (flat - np.float32(1)).reshape(shape)


def shared(weight: NDArray[np.float32], sparsity: float, levels: int = 31) -> Shared:
    """The largest weights, on a grid of ``levels`` (odd) levels between the extremes."""
    half = levels // 2
    threshold = np.quantile(np.abs(weight), sparsity)
    step = np.float32(np.abs(weight).max() / half)
    level = np.rint(weight / step).astype(np.int16)
    level[(level == 0) & (np.abs(weight) > threshold)] = 1
    level[np.abs(weight) <= threshold] = 0
    grid = np.delete(np.arange(-half, half + 1), half).astype(np.float32) * step
    indices = np.where(level < 0, level + half + 1, level + half) * (level != 0)
    return Shared(indices.astype(index_dtype(2 * half)), grid)


def draw(drawn: Drawn) -> bytes:
    """The .dcz file of a network of random weights."""
    torch.manual_seed(SEED)
    network, _ = build_network(drawn.arch)
    network.eval()
    skeleton = graphs.trace(network, torch.zeros(drawn.shape), OPSET)
    tensors: dict[str, Any] = {}
    for name, value in plain_state(network).items():
        tensors[name] = shared(value, drawn.sparsity) if value.ndim > 1 else value
    return encode(tensors, profile=drawn.profile, graph=skeleton)


def write(folder: Path, names: list[str]) -> None:
    """``NAME.dcz`` and ``NAME.onnx`` of each, and ``subjects.json``: shapes and sizes."""
    found = {}
    for name in names:
        blob = draw(DRAWN[name]) if name in DRAWN else DEMO.read_bytes()
        (folder / f"{name}.dcz").write_bytes(blob)
        artifact = read(folder / f"{name}.dcz")
        if artifact.graph is None:
            raise ValueError(f"{name} has no graph")
        dense = build(artifact.graph, artifact.tensors(), artifact.metadata)
        (folder / f"{name}.onnx").write_bytes(dense)
        found[name] = {
            "shape": SHAPES[name],
            "bytes": {"dcz": len(blob), "onnx": len(dense)},
            "parameters": sum(entry.elements for entry in artifact.entries),
            "modes": sorted({entry.mode.name for entry in artifact.entries}),
        }
    (folder / "subjects.json").write_text(json.dumps(found))
