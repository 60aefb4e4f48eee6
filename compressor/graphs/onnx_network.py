"""An ONNX graph as a module that computes it, node by node, with torch.

It is there to be traced once (``graphs/relayer.py``); what comes of that is the network. Weights
keep their names in the file, made fit for torch; where an exporter has given them numbers only, the
name of their node tells where they belong.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import LoadError
from compressor.graphs import (
    onnx_elementwise,
    onnx_file,
    onnx_layers,
    onnx_reductions,
    onnx_shapes,
)
from compressor.graphs.onnx_operators import OPERATORS, Step, Unsupported, settled
from compressor.graphs.onnx_steps import folded, step_of
from compressor.graphs.recurrent import recurrent

__all__ = ["OnnxNetwork", "onnx_elementwise", "onnx_layers", "onnx_reductions", "onnx_shapes"]
# All but the first fill the table of operators.

Arrays = dict[str, NDArray[Any]]
_NUMBERED = re.compile(r"onnx::.*|(v|val|const|initializer|_val|tensor)_?\d*(_\d+)*|\d+")
_ENDING = re.compile(r"[._](weight(_ih_l\d+)?|kernel|W|w)(_\d+)?$")


class OnnxNetwork(nn.Module):
    """Computes ``model``; ``batch`` is the size that the file fixes for the batch, None if free.

    Raises :class:`LoadError` for an operator that is not known, naming its node.
    """

    def __init__(self, path: Path, model: onnx.ModelProto, batch: int | None) -> None:
        super().__init__()
        self.path, graph = path, model.graph
        opset = onnx_file.version(model)
        if not onnx_file.OLDEST <= opset <= onnx_file.NEWEST:
            raise LoadError(
                f"{path} uses version {opset} of the ONNX operators; versions "
                f"{onnx_file.OLDEST} to {onnx_file.NEWEST} are read: export it for one of them"
            )
        arrays = dict(onnx_file.arrays(path, graph))
        self.names = [item.name for item in graph.input if item.name not in arrays]
        self.outputs = [item.name for item in graph.output]
        steps = [step_of(node, opset, batch) for node in graph.node]
        self._check(steps)
        self.steps = folded(steps, arrays)
        self.held: dict[str, str] = {}  # value -> the dotted name of a tensor or layer of ours
        self.known: Arrays = {}
        self._own(arrays)
        last = {name: at for at, step in enumerate(self.steps) for name in step.inputs}
        self.spent = [
            [n for n in set(s.inputs) if last[n] == at] for at, s in enumerate(self.steps)
        ]

    def forward(self, *inputs: Tensor) -> Any:
        values: dict[str, Any] = dict(self.known)
        values |= {name: self._get(where) for name, where in self.held.items()}
        values |= dict(zip(self.names, inputs, strict=True))
        values[""] = None
        keep = {*self.outputs, ""}
        for step, spent in zip(self.steps, self.spent, strict=True):
            given = [values[name] for name in step.inputs]
            while given and given[-1] is None:
                given.pop()
            found = self._run(step, given)
            found = map(settled, found if isinstance(found, tuple) else (found,))
            values |= dict(zip(step.outputs, found, strict=False))
            for name in spent:
                if name not in keep:
                    values.pop(name, None)
        found = tuple(self._output(values[name]) for name in self.outputs)
        return found[0] if len(found) == 1 else found

    def _output(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))

    def _run(self, step: Step, given: list[Any]) -> Any:
        try:
            return OPERATORS[step.operator](step, *given)
        except Unsupported as error:
            raise LoadError(
                f"{self.path}: node {step.label[:80]!r} is {step.operator} with what is not read "
                f"here: {error}"
            ) from None

    def _get(self, name: str) -> Any:
        owner, _, leaf = name.rpartition(".")
        return getattr(self.get_submodule(owner), leaf)

    def _check(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step.operator not in OPERATORS:
                raise LoadError(
                    f"{self.path}: node {step.label[:80]!r} is {step.operator}, an "
                    "operator that is not read here: give the PyTorch checkpoint and --arch, "
                    "or export the network without it"
                )

    # ---- weights ---------------------------------------------------------------------------

    def _own(self, arrays: Arrays) -> None:
        """Float arrays become parameters; batch norms' statistics and the first states of
        recurrent layers, buffers. The rest is known, and so are the scales of a resize, which say
        what shape its output has."""
        uses: dict[str, list[tuple[Step, int]]] = {}
        for step in self.steps:
            for slot, name in enumerate(step.inputs):
                uses.setdefault(name, []).append((step, slot))
        untrained: set[str] = set()
        for at, step in enumerate(self.steps):
            if step.operator == "BatchNormalization":
                untrained |= set(step.inputs[3:5])
            if step.operator in ("LSTM", "GRU", "RNN"):
                untrained |= set(step.inputs[5:7])
                self.steps[at] = self._recurrent(step, arrays)
        for name in list(arrays):
            value = arrays.pop(name)
            if name not in uses:
                continue
            shapes = all(step.operator in ("Resize", "Upsample") for step, _ in uses[name])
            if value.dtype.kind != "f" or value.size < 2 or shapes:
                self.known[name] = value.astype(np.float32) if value.dtype.kind == "f" else value
                continue
            tensor = torch.from_numpy(value.astype(np.float32, copy=not value.flags.writeable))
            where = _name(name, *uses[name][0])
            self.held[name] = self._put(where, tensor, trained=name not in untrained)

    def _put(self, name: str, value: Tensor | nn.Module, *, trained: bool = True) -> str:
        """Register a tensor, or a layer, under ``name`` or the next one that is free."""
        *path, leaf = name.split(".")
        owner: nn.Module = self
        for part in path:
            part = _free(part) if part in _TAKEN else part
            if not isinstance(getattr(owner, part, None), nn.Module):
                owner.add_module(_unused(owner, part), nn.Module())
                part = next(reversed(owner._modules))
            owner = cast(nn.Module, getattr(owner, part))
        leaf = _unused(owner, leaf)
        if isinstance(value, nn.Module):
            owner.add_module(leaf, value)
        elif trained:
            owner.register_parameter(leaf, nn.Parameter(value))
        else:
            owner.register_buffer(leaf, value)
        return ".".join(
            [*[name for name, module in self.named_modules() if module is owner][:1], leaf]
        ).lstrip(".")

    def _recurrent(self, step: Step, arrays: Arrays) -> Step:
        w, r, *b = (arrays.get(name) for name in step.inputs[1:4])
        if w is None or r is None:
            raise LoadError(
                f"{self.path}: node {step.label[:80]!r} is {step.operator} with weights that are "
                "computed: export the network with its weights as they are"
            )
        if step.inputs[4:5] not in ((), ("",)):
            raise LoadError(
                f"{self.path}: node {step.label[:80]!r} is {step.operator} over sequences of "
                "several lengths, which is not read here: export it for whole sequences"
            )
        try:
            layer = recurrent(step, w, r, *b)
        except Unsupported as error:
            raise LoadError(
                f"{self.path}: node {step.label[:80]!r} is {step.operator} with what is not read "
                f"here: {error}"
            ) from None
        name = _ENDING.sub("", _name(step.inputs[1], step, 1))
        self.held[f"layer of {step.outputs[0]}"] = self._put(name, layer)
        inputs = (step.inputs[0], f"layer of {step.outputs[0]}", *step.inputs[5:7])
        return Step(**{**vars(step), "inputs": inputs})


_TAKEN = frozenset(dir(nn.Module())) | {
    "names",
    "outputs",
    "steps",
    "held",
    "known",
    "spent",
    "path",
}


def _free(name: str) -> str:
    return f"{name}_"


def _unused(owner: nn.Module, name: str) -> str:
    """``name``, made longer until neither the owner nor any module has an attribute of it."""
    while hasattr(owner, name) or name in _TAKEN:
        name = _free(name)
    return name


_LEAVES = {
    "Conv": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "Linear": {1: "weight", 2: "bias"},
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
    "LayerNormalization": {1: "weight", 2: "bias"},
    "GroupNormalization": {1: "weight", 2: "bias"},
    "InstanceNormalization": {1: "weight", 2: "bias"},
}


def _name(name: str, step: Step, slot: int) -> str:
    """What a weight is called: as in the file, or by its node where the file has but a number."""
    leaf = _LEAVES.get(step.operator, {}).get(slot, "weight")
    if not _NUMBERED.fullmatch(name):
        return onnx_file.plain(name)
    place = _scope(step.name)
    return f"{place}.{leaf}" if place else f"{onnx_file.plain(name)}.{leaf}"


def _scope(node: str) -> str:
    """ "/layer1/layer1.0/conv1/Conv" -> "layer1.0.conv1": the exporter's way to say where."""
    parts = [part for part in node.strip("/").split("/")[:-1] if part]
    if not node.startswith("/"):
        return ""
    path: list[str] = []
    for part in parts:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return onnx_file.plain(".".join(path)) if path else ""
