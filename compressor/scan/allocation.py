"""How much of each layer: what a layer loses against the bits that it saves, at one price for all.

The model is additive: the increases of the loss that changes cause one by one sum up. Then the
best settings for any budget are found layer by layer, each minimising

    increase of the loss  +  price x bits

at one price, the Lagrangian's (Shoham and Gersho 1988, "Efficient bit allocation"). Higher prices
give smaller networks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Doubles = NDArray[np.float64]
FINE = np.round(np.concatenate([[0.0], 1 - np.geomspace(0.7, 5e-4, 250)]), 4)
"""Sparsities that may be proposed, as far as a layer's curve goes: of one to the next, 3 % fewer
weights are left."""
PLAIN = 32.0
"""Bits of a weight that nothing shares."""


@dataclass(frozen=True)
class Setting:
    """Of one layer: the part of the weights to prune, and a codebook's width (None: none)."""

    sparsity: float
    bits: int | None


Choice = tuple[Setting, float, float]
"""A setting, the increase of the loss that it makes, and its size in bits."""


@dataclass(frozen=True, eq=False)
class LayerModel:
    """What each setting of a layer of ``weights`` costs.

    ``increase`` (sparsities, widths) is in nats, ``size`` of the same shape in bits.
    """

    weights: int
    sparsities: Doubles
    widths: tuple[int | None, ...]
    increase: Doubles
    size: Doubles

    def best(self, price: float) -> Choice:
        """The setting that is best at ``price`` nats a bit, its increase, its bits."""
        return self._at(int(np.argmin(self.increase + price * self.size)))

    def least(self, bits: float) -> Choice:
        """The setting of least increase within ``bits``, or one of the smallest size there is."""
        allowed = self.size <= max(bits, float(self.size.min()))
        return self._at(int(np.argmin(np.where(allowed, self.increase, np.inf))))

    def _at(self, at: int) -> Choice:
        row, column = divmod(at, len(self.widths))
        setting = Setting(float(self.sparsities[row]), self.widths[column])
        return setting, float(self.increase[row, column]), float(self.size[row, column])


def layer_model(
    weights: int,
    pruned: Sequence[tuple[float, float]],
    shared: Sequence[tuple[int, float, float]],
) -> LayerModel:
    """From a layer's curves: ``pruned`` (sparsity, increase), ``shared`` (bits, increase, entropy).

    Curves are made monotone, since a scan's noise and lucky prunings must not pay; sparsities
    between those scanned are interpolated. A position costs the entropy of its being zero, a weight
    that is left the entropy of its index, and a centroid 16 bits.
    """
    known = sorted(pruned)
    ends = [0.0, *(sparsity for sparsity, _ in known)]
    rises = np.maximum.accumulate([0.0, *(max(rise, 0.0) for _, rise in known)])
    fine = FINE[ends[-1] >= FINE] if known else np.zeros(1)
    kept = np.array([max(1, weights - round(s * weights)) / weights for s in fine])
    by_sparsity = PchipInterpolator(ends, rises)(fine) if known else np.zeros(1)
    widths: list[int | None] = []
    by_width, entropies = [], []
    worst = 0.0
    for width, rise, entropy in sorted(shared, reverse=True):
        worst = max(worst, rise)
        widths.append(width)
        by_width.append(worst)
        entropies.append((entropy, 16.0 * min(2**width, weights)))
    if not widths:
        widths, by_width, entropies = [None], [0.0], [(PLAIN, 0.0)]
    positions = np.array([_entropy(part) for part in kept])
    each, books = np.array(entropies).T
    size = weights * (positions[:, None] + kept[:, None] * each[None, :]) + books[None, :]
    increase = by_sparsity[:, None] + np.array(by_width)[None, :]
    return LayerModel(weights, fine, tuple(widths), increase, size)


def _entropy(part: float) -> float:
    return -sum(p * math.log2(p) for p in (part, 1 - part) if p > 0)


def allocate(models: Mapping[str, LayerModel], price: float) -> tuple[dict[str, Setting], float]:
    """The best setting of every layer at ``price``, and the bits of all together."""
    found = {name: model.best(price) for name, model in models.items()}
    return {name: setting for name, (setting, _, _) in found.items()}, sum(
        size for _, _, size in found.values()
    )


def price_of(models: Mapping[str, LayerModel], bits: float) -> float:
    """The least price at which the model's size is at most ``bits``, or the highest there is."""
    low, high = LOWEST, HIGHEST
    if allocate(models, high)[1] > bits:
        return high
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if allocate(models, middle)[1] <= bits else (middle, high)
    return high


def allocate_within(models: Mapping[str, LayerModel], bits: float) -> dict[str, Setting]:
    """Settings of at most ``bits`` together, or the smallest there are.

    Those of the least price that suffices, and what that leaves of ``bits`` spent layer by layer
    where it saves most: at no price do the curves of a few layers use up any number of bits.
    """
    price = price_of(models, bits)
    found = {name: model.best(price) for name, model in models.items()}
    while True:
        left = bits - sum(size for _, _, size in found.values())
        if left <= 0:
            break
        better = {name: model.least(found[name][2] + left) for name, model in models.items()}
        name = max(models, key=lambda each: found[each][1] - better[each][1])
        if not better[name][1] < found[name][1]:
            break
        found[name] = better[name]
    return {name: setting for name, (setting, _, _) in found.items()}


LOWEST, HIGHEST = 1e-14, 1e4
"""Prices between which everything and nothing is kept, in nats a bit."""
