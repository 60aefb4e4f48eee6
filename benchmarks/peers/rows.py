"""A method's row before it is measured: what is shipped, what it needed, what runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.benchmarks.peers.tasks import SEED, TRAINING, Task
from compressor.channels.speed import exported
from compressor.network import Context, Network
from compressor.reporting.console import ConsoleProgress
from compressor.storage import plain_state
from compressor.training.data import Data
from compressor.training.fit import fit

NO_DATA = "no data"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Made:
    """One row: ``size`` in bytes of a file of the kind ``file``; ``model`` is its network in ONNX.

    ``tool`` names who made it, ``needs`` the images and labels that it looked at.
    """

    method: str
    tool: str
    needs: str
    file: str
    size: int
    model: bytes

    def row(self, onnx: str) -> dict[str, Any]:
        known = asdict(self)
        del known["model"]
        known["bytes"] = known.pop("size")
        return {**known, "onnx": onnx}


@dataclass
class Work:
    """What methods are given: the task, its data, and a place for files."""

    task: Task
    folder: Path

    @cached_property
    def data(self) -> Data:
        return self.task.load()

    @cached_property
    def context(self) -> Context:
        return Context(self.data, seed=SEED, progress=ConsoleProgress())

    @property
    def trained_on(self) -> str:
        return f"{self.task.passed(self.data):,} labelled images, once"

    def network(self) -> Network:
        """The trained network, each time anew."""
        return self.task.network()

    def retrained(self, module: nn.Module, title: str) -> nn.Module:
        """One pass, in place, as all who train have it."""
        fit(module.to(memory_format=torch.channels_last), TRAINING, self.context, title)
        return module.to(memory_format=torch.contiguous_format).eval()

    def model(self, module: nn.Module) -> bytes:
        """The ONNX file of ``module``, as a run of this tool writes it."""
        example = self.network().example
        return exported(Network(module.eval(), example, self.task.arch, self.task.arch))

    def model_of(self, tensors: Arrays) -> bytes:
        """The same of the network with these tensors, by their names in the state_dict."""
        module = self.network().module
        state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        missing, unexpected = module.load_state_dict(state, strict=False)
        wrong = [*unexpected, *(name for name in missing if not name.endswith("_tracked"))]
        if wrong:
            raise ValueError(f"tensors of another network: {', '.join(wrong)}")
        return self.model(module)

    def tensors(self, module: nn.Module | None = None) -> dict[str, NDArray[Any]]:
        """Tensors by name, float32, without counters of batches: what a checkpoint has to hold."""
        state = plain_state(self.network().module if module is None else module)
        return {name: value for name, value in state.items() if not name.endswith("_tracked")}


Method = Callable[[Work], Iterator[Made]]
