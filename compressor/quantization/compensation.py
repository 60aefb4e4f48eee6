"""Rounding weights one column after another, each error made up for by the columns that follow.

With the second moments H of a layer's inputs, rounding column j of the weights shifts the layer's
outputs; the columns not yet rounded can take most of that back. Optimal Brain Surgeon (Hassibi and
Stork 1993) gives the shift that does, and a Cholesky factor of H's inverse gives all of its steps
at once (Frantar et al. 2023, "GPTQ", arXiv:2210.17323, section 3). What a value costs in the
artifact is weighed against the error that is left.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DAMPING = 0.01
"""Of the mean second moment, added to each: bounds the shifts where inputs hardly vary."""
MAX_LEVEL = (1 << 13) - 1
_TURNS = 2  # of counting levels and choosing them anew
_PANEL = 32


@dataclass(frozen=True)
class Factor:
    """A layer's ``moments`` made ready: the order of columns and the triangular factor.

    Attributes:
        order: (b, columns) int64, columns of the most energy first.
        upper: (b, columns, columns) float64 with ``upper.mT @ upper`` the inverse moments.
    """

    order: Tensor
    upper: Tensor

    @property
    def spread(self) -> float:
        """Geometric mean of what one step of a column leaves, in units of the moments' inverse."""
        diagonal = torch.diagonal(self.upper, dim1=1, dim2=2)
        return math.exp(2 * float(diagonal.log().mean()))


def factor(moments: Tensor) -> Factor:
    """Factor ``moments`` (b, columns, columns), positive semidefinite."""
    wide = moments.double()
    energy = torch.diagonal(wide, dim1=1, dim2=2)  # (b, columns)
    floor = energy.mean(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny * 1e16)
    order = torch.argsort(energy, dim=1, descending=True, stable=True)
    rows = wide.gather(1, order.unsqueeze(2).expand_as(wide))
    sorted_ = rows.gather(2, order.unsqueeze(1).expand_as(wide))
    sorted_ = sorted_ + torch.diag_embed((DAMPING * floor).expand_as(energy))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(sorted_))
    return Factor(order, torch.linalg.cholesky(inverse, upper=True))


def levels_of(
    weights: Tensor, found: Factor, importance: Tensor, step: float, price: float, kept: Tensor
) -> Tensor:
    """Whole multiples of ``step`` for ``weights`` (b, rows, columns), as int64 of that shape.

    Args:
        importance: (b, rows), what a row's error counts.
        price: what a bit is worth, in units of importance x moments x squared error. Bits are those
            of an ideal static code for the levels that came out, the same for either sign.
        kept: bool of the weights' shape; False is a pruned weight, whose level is 0.
    """
    levels = torch.where(kept, (weights.double() / step).round(), 0.0).clamp(-MAX_LEVEL, MAX_LEVEL)
    for _ in range(_TURNS if price > 0 else 1):
        levels = _rounded(weights.double(), found, importance, step, price * _bits(levels), kept)
    return levels.long()


def _bits(levels: Tensor) -> Tensor:
    """Code length of each magnitude, (MAX_LEVEL + 1,), float64."""
    sizes: NDArray[np.int64] = levels.abs().long().flatten().numpy()
    counts = np.bincount(sizes, minlength=MAX_LEVEL + 1).astype(np.float64)
    counts[1:] /= 2  # either sign
    smooth = counts + 0.25
    total = smooth[0] + 2 * smooth[1:].sum()
    return torch.from_numpy(-np.log2(smooth / total))


def _rounded(
    weights: Tensor, found: Factor, importance: Tensor, step: float, cost: Tensor, kept: Tensor
) -> Tensor:
    index = found.order.unsqueeze(1).expand_as(weights)
    left, mask = weights.gather(2, index), kept.gather(2, index)
    out = torch.zeros_like(left)
    errors = torch.zeros_like(left)
    columns = left.shape[2]
    for first in range(0, columns, _PANEL):  # shifts of later columns wait for the panel's end
        panel = range(first, min(first + _PANEL, columns))
        for column in panel:
            scale = found.upper[:, column, column, None]  # (b, 1)
            wanted = left[:, :, column]
            level = _cheapest(wanted, importance / scale**2, step, cost)
            level = torch.where(mask[:, :, column], level, 0.0)
            out[:, :, column] = level
            errors[:, :, column] = (wanted - level * step) / scale
            rest = slice(column + 1, panel.stop)
            shift = found.upper[:, None, column, rest]
            left[:, :, rest] -= errors[:, :, column, None] * shift
        done = slice(first, panel.stop)
        left[:, :, panel.stop :] -= errors[:, :, done] @ found.upper[:, done, panel.stop :]
    return torch.zeros_like(out).scatter_(2, index, out)


def _cheapest(wanted: Tensor, weight: Tensor, step: float, cost: Tensor) -> Tensor:
    """The nearest level, the next one towards zero, or zero: whichever costs least."""
    nearest = (wanted / step).round().clamp(-MAX_LEVEL, MAX_LEVEL)
    best, least = nearest, None
    for level in (nearest, nearest - nearest.sign(), torch.zeros_like(nearest)):
        total = weight * (wanted - level * step) ** 2 + cost[level.abs().long()]
        if least is None:
            least = total
            continue
        best = torch.where(total < least, level, best)
        least = torch.minimum(total, least)
    return best
