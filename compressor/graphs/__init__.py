"""Networks that come with their graph (.onnx, .pt2, TorchScript) -> ordinary modules.

Each is first something that computes the graph with torch, is then recorded by ``torch.export`` for
any batch, and becomes a module with real layers (``relayer.py``). So there is one natural way
through for all, and what comes out can be pruned, shared, cut, trained and exported like a network
of a user's own class.

Weighed before an importer of ONNX was written here: onnx2torch 1.5.15 (Apache-2.0, August 2024). It
knows no recurrent layer and no group norm, and makes tensors of sizes (``torch.tensor(x.shape)``),
which ``torch.export`` cannot follow with a free batch.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compressor.errors import LoadError
from compressor.examples import Example

ONNX, EXPORTED, SCRIPTED = "onnx", "pt2", "torchscript"
KINDS = (ONNX, EXPORTED, SCRIPTED)
"""What stands for the architecture of such a network: it has no class, the file is its own."""


@dataclass(frozen=True)
class Imported:
    """A network that brought its graph: the module, one input, which form it came in, and the files
    beside its own that its weights lay in."""

    module: nn.Module
    example: Example
    kind: str
    beside: tuple[Path, ...] = ()


def state(path: Path, kind: str, *, trust_pickle: bool) -> dict[str, torch.Tensor]:
    """Only the tensors, for a class that the user names. Raises :class:`LoadError`."""
    from compressor.graphs import exported, scripted

    if kind == ONNX:
        raise LoadError(
            f"{path} is an ONNX file, which brings its own graph: leave --arch out, or give the "
            "PyTorch checkpoint that it was exported from"
        )
    if kind == EXPORTED:
        return dict(exported.program(path, trust_pickle=trust_pickle).state_dict)
    return dict(scripted.script(path).state_dict())


def read(
    path: Path,
    kind: str,
    shape: tuple[int, ...] | None = None,
    *,
    trust_pickle: bool = False,
    example: Example | None = None,
) -> Imported:
    """The network in a file of ``kind``. ``shape`` is that of one input without the batch, where
    the file leaves it open; ``example`` the inputs, where they are given.

    Raises :class:`LoadError` for whatever is wrong with the file, in one line.
    """
    from compressor.graphs import exported, importing, scripted

    given = example if example is not None or shape is None else torch.zeros(1, *shape)
    if kind == ONNX:
        module, example, beside = importing.read(path, given)
        return Imported(module, example, kind, tuple(beside))
    if kind == EXPORTED:
        return Imported(*exported.read(path, given, trust_pickle=trust_pickle), kind)
    return Imported(*scripted.read(path, given), kind)
