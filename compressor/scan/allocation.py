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
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Doubles = NDArray[np.float64]
FINE = np.round(np.concatenate([[0.0], 1 - np.geomspace(0.7, 5e-4, 250)]), 4)
"""Sparsities that may be proposed, as far as a layer's curve goes: of one to the next, 3 % fewer
weights are left."""
RESOLUTION = 1e-3
"""Nats: an increase of the loss that a scan's images do not tell from none."""
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

    ``pruning`` (sparsities,) and ``sharing`` (widths,) are increases of the loss in nats, ``size``
    (sparsities, widths) is in bits.
    """

    weights: int
    sparsities: Doubles
    widths: tuple[int | None, ...]
    pruning: Doubles
    sharing: Doubles
    size: Doubles

    @cached_property
    def increase(self) -> Doubles:
        """Nats, (sparsities, widths): the two increases sum up."""
        return self.pruning[:, None] + self.sharing[None, :]

    def parts(self, setting: Setting) -> tuple[float, float]:
        """What ``setting``'s sparsity increases the loss by, and what its width."""
        row = int(np.flatnonzero(self.sparsities == setting.sparsity)[0])
        return float(self.pruning[row]), float(self.sharing[self.widths.index(setting.bits)])

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
    resolution: float = RESOLUTION,
) -> LayerModel:
    """From a layer's curves: ``pruned`` (sparsity, increase), ``shared`` (bits, increase, entropy).

    Curves are made monotone, since a scan's noise and lucky prunings must not pay, and of increases
    too small to be told (``resolution``; 0 where no images had to tell them) the gentler change is
    the better one; sparsities between those scanned are interpolated. A position costs the entropy
    of its being zero, a weight that is left the entropy of its index, and a centroid 16 bits.
    """
    known = sorted(pruned)
    ends = [0.0, *(sparsity for sparsity, _ in known)]
    rises = _told([0.0, *(rise for _, rise in known)], np.array(ends) ** 3, resolution)
    fine = FINE[ends[-1] >= FINE] if known else np.zeros(1)
    kept = np.array([max(1, weights - round(s * weights)) / weights for s in fine])
    by_sparsity = PchipInterpolator(ends, rises)(fine) if known else np.zeros(1)
    widths: tuple[int | None, ...] = (None,)
    by_width, entropies = np.zeros(1), [(PLAIN, 0.0)]
    if shared:
        bits, rise, entropy = zip(*sorted(shared, reverse=True), strict=True)
        by_width = _told(rise, 4.0 ** -np.array(bits), resolution)
        entropies = [(e, 16.0 * min(2**w, weights)) for w, e in zip(bits, entropy, strict=True)]
        widths = bits
    positions = np.array([_entropy(part) for part in kept])
    each, books = np.array(entropies).T
    size = weights * (positions[:, None] + kept[:, None] * each[None, :]) + books[None, :]
    return LayerModel(weights, fine, widths, by_sparsity, by_width, size)


def _told(rises: Sequence[float], errors: Doubles, resolution: float) -> Doubles:
    """A layer's increases, from the gentlest change on, where noise hid what they must be.

    ``errors`` are to one another as the squared errors of the weights, of which a small increase is
    a multiple: it grows with the cube of the sparsity (weights lie evenly about zero) and by four
    for each bit less. Up to ``resolution`` a step loses what that says, whatever was seen: else
    a layer that lost nothing by luck, or as much by a gentle change as by a harsh one, is given
    the harsh one for nothing.
    """
    found = np.maximum.accumulate(np.maximum(rises, 0.0))
    for at in range(len(found) - 2, -1, -1):
        harsher = found[at + 1]
        law = harsher * errors[at] / errors[at + 1]
        least, most = min(resolution, law), harsher - min(resolution, harsher - law)
        found[at] = min(max(found[at], least), most)
    return found


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
