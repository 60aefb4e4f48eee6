"""Settings of the two ways to quantize: shared weights, and calibrated grids."""

import typing
from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.per_layer import PerLayer
from compressor.settings.checks import Rules, choice, integer, number, settle
from compressor.settings.training import Training

Init = typing.Literal["linear", "density", "random", "optimal"]
INITS = ("linear", "density", "random", "optimal")

RATE = 0.02
"""The rate of ``--rate-aware`` alone: the most that cost the LeNets no validation image."""

NOISE = 0.045
"""The noise of ``--quantize auto`` alone: costs the ResNets of CIFAR-10 a tenth of a point."""


def parse_rate(value: object) -> float:
    """The rate of one layer: 0 or more."""
    return number("rate", value, 0.0)


TERNARY = "ternary"


def parse_bits(value: object) -> int | str:
    """A codebook width, ``5bit``, ``5bits``, ``5`` or 5: 1 to 16 bits, so 2 to 65,536 centroids.

    Or ``ternary``.
    """
    if isinstance(value, str) and value.strip() == TERNARY:
        return TERNARY
    text = value.strip().removesuffix("s").removesuffix("bit") if isinstance(value, str) else value
    try:
        return integer("bits", text, 1, 16)
    except UsageError:
        raise UsageError(
            f"share.bits is {value!r}: it must be a width from 1bit to 16bit, such as 5bit, or "
            "ternary"
        ) from None


def parse_centroids(value: object) -> int:
    """A codebook's size: 1 to 65,536 centroids."""
    return integer("share.centroids", value, 1, 1 << 16)


@dataclass(frozen=True)
class Share:
    """Stage 2 (section 3): k-means on each layer's surviving weights, then centroid fine-tuning.

    ``bits`` b gives 2^b centroids; ``centroids`` sets their number, a power of two or not, for the
    layers that it names. ``init`` is one of the paper's three starts (section 3.2), or
    "optimal", which needs none: the least squared error that there is. ``rate`` over 0 makes it
    entropy-constrained quantization in place of k-means: what a bit of the artifact is worth, as a
    squared error in units of the layer's mean square weight. Weights that are not worth their bits
    become zero. Before centroids are fine-tuned, ``train`` trains the weights on behind their
    shared values, so that weights may change centroids; no epochs, and they stay where k-means put
    them.

    ``bits`` "ternary" is trained ternary quantization: fine-tuning also finds which weights are
    -Wn, 0 or +Wp. ``threshold`` is the part of a layer's largest weight below which one is 0.
    """

    bits: Rules = 5
    init: Init = "linear"
    finetune: Training = Training(epochs=5, lr=1e-3, optimizer="adam", weight_decay=0.0)
    rate: Rules = 0.0
    threshold: float = 0.05
    centroids: Rules | None = None
    train: Training = Training(epochs=0, lr=1e-3, optimizer="adam", weight_decay=0.0)

    def __post_init__(self) -> None:
        settle(
            self,
            bits=self.rules,
            rate=self.rates,
            threshold=number("share.threshold", self.threshold, 0.0, 0.99),
        )
        if self.centroids is not None:
            settle(self, centroids=self.sizes)
        if self.has_ternary and any(rate for _, rate in self.rates.rules):
            raise UsageError(
                "share.rate has no effect on ternary weights, whose zeros training finds: give "
                "share.threshold (--set share.threshold=0.1), or leave the rate out (--rate-aware)"
            )
        choice("share.init", self.init, INITS)

    @property
    def rules(self) -> PerLayer:
        """The codebook width of each layer, in bits, or "ternary"."""
        return PerLayer.parse(self.bits, parse_bits)

    @property
    def has_ternary(self) -> bool:
        """Whether any rule asks for ternary weights."""
        return any(value == TERNARY for _, value in self.rules.rules)

    @property
    def sizes(self) -> PerLayer:
        """The codebook's size of each layer that has one of its own."""
        return PerLayer.parse({} if self.centroids is None else self.centroids, parse_centroids)

    @property
    def rates(self) -> PerLayer:
        """The rate of each layer."""
        return PerLayer.parse(self.rate, parse_rate)


@dataclass(frozen=True)
class Calibrate:
    """Stage 2 in another way: grids as fine as the outputs need, errors compensated; no training.

    ``noise`` is how much all layers together may change the outputs: the root of the mean squared
    change over the outputs' mean square. ``max_drop`` has it found instead: the coarsest at which
    at most so many percent of the validation images are lost, which were right before. ``images``
    training images are looked at, their labels are not.
    """

    noise: float = NOISE
    max_drop: float | None = None
    images: int = 1000

    def __post_init__(self) -> None:
        settle(
            self,
            noise=number("calibrate.noise", self.noise, 1e-4, 10.0),
            images=integer("calibrate.images", self.images, 1, 1_000_000),
        )
        if self.max_drop is not None:
            settle(self, max_drop=number("calibrate.max_drop", self.max_drop, 0.0, 100.0))
