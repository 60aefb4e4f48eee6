"""Which network is compressed on which data, and under which conditions: the same for all tools."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from compressor import loading
from compressor.benchmarks.experiments import compress
from compressor.examples import one_image
from compressor.network import Network
from compressor.settings import Training
from compressor.training import data as datasets
from compressor.training.data import Data

RESNET20 = "resnet20-12fca82f.th"
"""Of akamaster/pytorch_resnet_cifar10. It was trained on all training images."""
TRAINING = Training(epochs=1, lr=0.02)
"""Of whoever trains: SGD, one pass, the rate falling along a half cosine."""
PASS = 10_000
"""Images of that pass at most: a quarter of CIFAR-10's, which takes a core about a minute."""
TEST = 256
"""Test images that a run of this tool reports on, which nothing here reads."""
SEED = 0


@dataclass(frozen=True)
class Task:
    """A trained network, its data, and what the methods are asked for.

    ``images`` are the training images of one pass, ``sparsity`` what pruning of weights leaves
    zero, ``macs`` the part of the multiply-adds that pruning of channels leaves. ``environments``
    is the folder of the other tools' environments.
    """

    arch: str
    checkpoint: Path
    data: str
    root: Path | None
    sparsity: float
    environments: Path
    images: int = PASS
    macs: float = 0.5

    @property
    def name(self) -> str:
        return f"{self.arch}-{self.data}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Task":
        found: dict[str, Any] = json.loads(text)
        for key in ("checkpoint", "root", "environments"):
            found[key] = None if found[key] is None else Path(found[key])
        return cls(**found)

    def network(self) -> Network:
        """The trained network."""
        return loading.load(self.checkpoint, arch=self.arch)

    def load(self) -> Data:
        """The data as methods see them: no more training images than one pass has, and few test
        images, since all are measured later, in one way for all."""
        shape = one_image(self.network().example).shape
        data = datasets.load(
            self.data, input_shape=(shape[1], shape[2], shape[3]), root=self.root, seed=SEED
        )
        return replace(
            data,
            train=data.train.take(torch.arange(self.passed(data))),
            test=data.test.take(torch.arange(min(TEST, len(data.test)))),
        )

    def passed(self, data: Data) -> int:
        """How many images one pass has; the training images are in random order."""
        return min(self.images, len(data.train))


def resnet20(checkpoints: Path, root: Path, environments: Path) -> Task:
    """ResNet-20 on CIFAR-10."""
    checkpoint = (checkpoints / RESNET20).resolve()
    return Task("resnet20", checkpoint, "cifar10", root.resolve(), 0.6, environments)


def lenet5(root: Path | None, environments: Path, folder: Path) -> Task:
    """LeNet-5, trained in ``folder``: on MNIST below ``root``, without it on the digits."""
    data = "digits" if root is None else "mnist"
    trained = folder / f"lenet5-{data}.pt"
    if not trained.exists():
        where = [] if root is None else ["--data-root", str(root.resolve())]
        compress([*_lenet5(data), "-o", trained.name, "--force", *where], folder)
    return Task("lenet5", trained, data, root and root.resolve(), 0.9, environments)


def _lenet5(data: str) -> Sequence[str]:
    epochs = {"digits": "20", "mnist": "3"}[data]
    return ("train", "lenet5", "--data", data, "--epochs", epochs, "--threads", "1")
