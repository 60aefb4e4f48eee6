"""The state of a training after each epoch, so that one that was killed goes on from there.

A stage may train several times, and does other things in between. When it is resumed it takes
these steps again, and each of its trainings, in their order, ends at once with the state that it
had ended with, until one is reached that had not ended. So nothing else has to be kept.
"""

import hashlib
import io
from typing import Any, Protocol

import torch
from torch import nn

from compressor import distributed
from compressor.errors import OutputError
from compressor.layers import restore

State = dict[str, Any]

_DIGEST = hashlib.sha256().digest_size


class Store(Protocol):
    """Where files are kept by name, whole or not at all: a :class:`Workspace`."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...


class Checkpoints:
    """Those of all trainings of one stage: files ``STAGE.training-1``, ``STAGE.training-2``, ..."""

    def __init__(self, store: Store, stage: str) -> None:
        self.store = store
        self.stage = stage
        self.begun = 0

    def next(self) -> "Checkpoint":
        """That of the stage's next training."""
        self.begun += 1
        return Checkpoint(self.store, f"{self.stage}.training-{self.begun}")


class Checkpoint:
    """What one training keeps: tensors and plain values, no code, behind their SHA-256 (32 bytes):
    torch reads most damaged files without complaint."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def load(self) -> State | None:
        """What was saved last, or None; raises :class:`OutputError` where that is damaged."""
        if not self.store.has(self.name):
            return None
        content = self.store.read(self.name)
        digest, content = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            raise OutputError(f"{self.name} is damaged: start over with --force")
        state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state

    def save(self, state: State) -> None:
        """Keep ``state`` in place of what was saved before."""
        content = io.BytesIO()
        if distributed.is_first():
            torch.save(state, content)
            digest = hashlib.sha256(content.getbuffer()).digest()
            self.store.write(self.name, digest + content.getvalue())


def load_module(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Give ``module`` what it had, its parametrizations too; in place where it has those already,
    so that whoever holds a mask or a codebook of it holds the same one afterwards."""
    if module.state_dict().keys() == state.keys():
        module.load_state_dict(state)
    else:
        restore(module, state)


def random_state(device: torch.device) -> list[list[torch.Tensor]]:
    """torch's own generators on every rank: the CPU's and, where there is one, the device's."""
    own = [torch.get_rng_state()]
    if device.type == "cuda":
        own.append(torch.cuda.get_rng_state(device))
    return distributed.gather(own)


def set_random_state(state: list[list[torch.Tensor]], device: torch.device) -> None:
    """Undo what was drawn since :func:`random_state`."""
    own = state[distributed.rank()]
    torch.set_rng_state(own[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(own[1], device)


def align_random(device: torch.device) -> None:
    """Every rank's generators as on the first: what comes after a training is the same on all."""
    if distributed.world() > 1:
        set_random_state([random_state(device)[0]] * distributed.world(), device)
