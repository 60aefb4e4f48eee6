"""Rounding weights one column after another, each error made up for by the columns that follow.

With the second moments H of a layer's inputs, rounding column j of the weights shifts the layer's
outputs; the columns not yet rounded can take most of that back. Optimal Brain Surgeon (Hassibi and
Stork 1993) gives the shift that does, and a Cholesky factor of H's inverse gives all of its steps
at once (Frantar et al. 2023, "GPTQ", arXiv:2210.17323, section 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING = 0.01
"""Of the mean second moment, added to each: bounds the shifts where inputs hardly vary."""
MAX_LEVEL = (1 << 13) - 1
_PANEL = 32
_DENSE = 7 / 8
_SAMPLED = 16  # rows of a block that tell its spread
_ENTRIES = 1 << 23


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
    def spread(self) -> Tensor:
        """The inverse of what an error in a column costs once the others have made up for it,
        (b, columns), in the order of ``order``."""
        return torch.diagonal(self.upper, dim1=1, dim2=2) ** 2


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


@dataclass(frozen=True)
class Compensation:
    """How a layer's errors are made up for, by ``moments`` (b, columns, columns).

    ``importance`` (b, rows) is what a row's errors count. Only weights that are ``kept``, bool
    (b, rows, columns), can make up for anything. Where many are pruned, each row has a factor of
    its own, of what it keeps; else rows of a block share one.
    """

    moments: Tensor
    kept: Tensor
    importance: Tensor
    shared: Factor | None

    @classmethod
    def of(cls, moments: Tensor, kept: Tensor, importance: Tensor) -> "Compensation":
        dense = float(kept.double().mean()) > _DENSE
        return cls(moments, kept, importance, factor(moments) if dense else None)

    @property
    def spread(self) -> float:
        """Geometric mean of `Factor.spread` over the weights kept, or over those of some rows."""
        if self.shared is not None:
            return float(self.shared.spread.log().mean().exp())
        logs = [
            torch.zeros_like(own.spread).scatter_(1, own.order, own.spread.log())[valid]
            for _, _, _, valid, own in self._rows(max(1, self.kept.shape[1] // _SAMPLED))
        ]
        return float(torch.cat(logs).mean().exp())

    def levels(self, weights: Tensor, step: float, price: float) -> Tensor:
        """Whole multiples of ``step`` for ``weights`` (b, rows, columns), as int64 of that shape.

        A weight goes to the nearest multiple; where many are pruned, to zero if the error that this
        adds is not worth the bits of one more weight and its place, at ``price`` a bit. Elsewhere a
        price saves less than it costs, since what is taken off weights of one sign adds up
        (measured on ResNet-20 at several prices).
        """
        if self.shared is not None:
            return _levels(weights, self.shared, step, self.kept, None)
        bits = 2 - float(self.kept.double().mean().clamp_min(1e-6).log2())
        out = torch.zeros(weights.shape, dtype=torch.int64)
        for block, rows, index, valid, own in self._rows(1):
            found = weights[block, rows].gather(1, index).unsqueeze(1)  # a row is a block here
            toll = price * bits / self.importance[block, rows].unsqueeze(1)
            levels = _levels(found, own, step, valid.unsqueeze(1), toll).squeeze(1)
            out[block, rows] = out[block, rows].scatter(1, index, levels)
        return out

    def _rows(self, every: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Factor]]:
        """Some rows at a time: block, rows (r,), columns that they keep (r, k) and which of these
        are no filling, and their factors."""
        for block in range(len(self.kept)):
            counts = self.kept[block].sum(1)
            numbers = counts.nonzero().flatten()[::every]
            for rows in torch.split(numbers, _size(int(counts.max()))):
                kept = self.kept[block, rows]
                most = int(counts[rows].max())
                index = torch.argsort(kept, dim=1, descending=True, stable=True)[:, :most]
                valid = kept.gather(1, index)
                own = self.moments[block][index.unsqueeze(2), index.unsqueeze(1)].double()
                own = torch.where(valid.unsqueeze(2) & valid.unsqueeze(1), own, 0.0)
                middle = torch.diagonal(own, dim1=1, dim2=2).sum(1) / valid.sum(1).clamp_min(1)
                own = own + torch.diag_embed(torch.where(valid, 0.0, middle.unsqueeze(1)))
                yield block, rows, index, valid, factor(own)


def _size(columns: int) -> int:
    """How many rows' factors may be in memory at once."""
    return max(1, _ENTRIES // max(1, columns) ** 2)


def _levels(
    weights: Tensor, found: Factor, step: float, kept: Tensor, toll: Tensor | None
) -> Tensor:
    """`Compensation.levels` for blocks whose rows share a factor; ``toll`` (b, rows) is the error
    that a zero may add."""
    index = found.order.unsqueeze(1).expand_as(weights)
    left, mask = weights.double().gather(2, index), kept.gather(2, index)
    out, errors = torch.zeros_like(left), torch.zeros_like(left)
    columns = left.shape[2]
    for first in range(0, columns, _PANEL):  # shifts of later columns wait for the panel's end
        panel = range(first, min(first + _PANEL, columns))
        for column in panel:
            wanted = left[:, :, column]
            level = (wanted / step).round().clamp(-MAX_LEVEL, MAX_LEVEL)
            level = torch.where(mask[:, :, column], level, 0.0)
            scale = found.upper[:, column, column, None]
            if toll is not None:
                added = (wanted**2 - (wanted - level * step) ** 2) / scale**2
                level = torch.where(added < toll, 0.0, level)
            out[:, :, column] = level
            errors[:, :, column] = (wanted - level * step) / scale
            rest = slice(column + 1, panel.stop)
            left[:, :, rest] -= errors[:, :, column, None] * found.upper[:, None, column, rest]
        done = slice(first, panel.stop)
        left[:, :, panel.stop :] -= errors[:, :, done] @ found.upper[:, done, panel.stop :]
    return torch.zeros_like(out).scatter_(2, index, out).long()
