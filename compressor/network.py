"""What goes through the stages, and the contract they share.

Every stage is a settings dataclass (``recipe.py``) plus one function::

    (Network, settings, Context) -> StageReport

The function changes the network in place. Reports are plain data; who prints them is not its
concern.
"""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.examples import Example
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.training.checkpoints import Checkpoints
    from compressor.training.data import Data


Row = dict[str, Any]


@dataclass
class Network:
    """A module with what is needed to run and name it.

    ``example`` is one input of shape (1, ...), or a tuple of several; ``source`` the SHA-256 of the
    file (or of the tensors, where there was no file) that it was loaded from; ``names`` the tensors
    to store; ``channels`` which channels of ``arch`` are left, where some are gone
    (``channels.Kept``).
    """

    module: nn.Module
    example: Example
    name: str
    arch: str
    source: str = ""
    names: tuple[str, ...] = ()
    channels: str | None = None

    def __post_init__(self) -> None:
        if not self.names:
            state = self.module.state_dict()
            self.names = tuple(n for n in state if not n.endswith("num_batches_tracked"))
        if not self.source:
            self.source = digest_tensors(self.module.state_dict())


@dataclass(frozen=True)
class StageReport:
    """What a stage did: rows per layer, rows per epoch where it trained, and what else it knows."""

    layers: list[Row]
    history: list[Row]
    details: Row = field(default_factory=dict)


@dataclass
class Context:
    """What a stage may use besides its settings: data (or none), device, seed, and an ear.

    ``teacher`` is the dense network, frozen, where a training asks to be distilled from it;
    ``checkpoints`` is where the stage's trainings keep their state after each epoch, if anywhere.
    """

    data: "Data | None" = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    progress: Progress = field(default_factory=Progress)
    teacher: nn.Module | None = None
    checkpoints: "Checkpoints | None" = None


def digest_tensors(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes, in the order of the state."""
    total = hashlib.sha256()
    for name, value in state.items():
        total.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        total.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return total.hexdigest()
