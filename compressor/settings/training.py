"""Settings of a training or retraining."""

from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.settings.checks import choice, integer, number, settle

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("fp32", "bf16", "fp16")
AUGMENTS = ("auto", "none", "flip-crop", "affine", "elastic")

DISTILL = 0.9
"""The weight of ``--distill`` alone: 2 to 3 points on a ResNet-20 after a short retraining."""


@dataclass(frozen=True)
class Training:
    """How a network is trained or retrained: cosine learning rate, last epoch kept.

    ``lr`` falls from its value to 0 along a half cosine over all steps, after a linear warm-up
    over the first ``warmup`` fraction of them. ``rewind`` over 0 rewinds the learning rate (Renda
    et al. 2020, arXiv:2003.02389, section 3): it goes as in the last ``epochs`` of a training that
    had ``rewind`` epochs and the peak ``lr``. ``weight_decay`` acts on weights of two and more
    dimensions only, not on biases, norms or codebooks. ``augment`` "auto" is the data set's own.
    ``distill`` is the share of the loss that asks for the dense network's answers at
    ``temperature``, not for the labels. ``slimming`` is the price of batch norms' scales, which
    drives those to 0 whose channels are needed least. ``precision`` is that of convolutions and
    matrix products ("bf16", "fp16": torch's autocast), and ``compile`` runs the network through
    ``torch.compile``: both are made for GPUs ("bf16" also for CPUs with instructions for it), and
    change the last bits of what is computed.
    """

    epochs: int = 10
    lr: float = 0.01
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    warmup: float = 0.05
    rewind: int = 0
    augment: str = "auto"
    distill: float = 0.0
    temperature: float = 4.0
    slimming: float = 0.0
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        choice("optimizer", self.optimizer, OPTIMIZERS)
        choice("augment", self.augment, AUGMENTS)
        choice("precision", self.precision, PRECISIONS)
        settle(
            self,
            epochs=integer("epochs", self.epochs, 0, 100_000),
            lr=number("lr", self.lr, 1e-12, 1e3),
            momentum=number("momentum", self.momentum, 0.0, 0.9999),
            weight_decay=number("weight_decay", self.weight_decay, 0.0, 10.0),
            batch_size=integer("batch_size", self.batch_size, 1, 1_000_000),
            warmup=number("warmup", self.warmup, 0.0, 0.9),
            rewind=integer("rewind", self.rewind, 0, 100_000),
            distill=number("distill", self.distill, 0.0, 1.0),
            temperature=number("temperature", self.temperature, 0.01, 1000.0),
            slimming=number("slimming", self.slimming, 0.0, 1.0),
        )
        if 0 < self.rewind < self.epochs:
            raise UsageError(
                f"rewind is {self.rewind}: it is how many epochs a training had whose last epochs "
                f"are repeated, so at least epochs ({self.epochs}), or 0"
            )


FROM_NOTHING = Training(epochs=20, lr=0.05, weight_decay=5e-4)
"""What ``compress train`` begins from: more epochs and a higher rate than retraining needs."""
