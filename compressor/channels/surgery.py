"""Optimal Brain Surgeon for channels: what the outputs lose once the layers that read have adapted.

When the columns C of a layer's weights go, the other columns can make up for part of it. With H the
covariance of what the layer reads, P its inverse and W the weights, the least error that is left
in row i is W_iC (P_CC)^-1 W_iC', and W - W_C (P_CC)^-1 P_C leaves it (Hassibi and Stork 1993; for
structures: Kurtic et al. 2023, "ZipLM", arXiv:2302.04089, section 3). Channels are scored by taking
them away one after another, and weights are fitted by the closed form of all these steps at once.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels.dependencies import Dependencies, Group, Keep
from compressor.channels.moments import Reader

Scores = NDArray[np.float64]


def scores(dependencies: Dependencies, readers: Mapping[str, Reader]) -> Scores:
    """For every class, the mean squared change of the outputs that its removal adds; or NaN.

    Each group's classes go cheapest first, weights adapting each time. Scores rise in that order,
    so that a threshold removes what the order removes; being errors of the same outputs, they are
    comparable from group to group.
    """
    found = np.full(dependencies.count, np.nan)
    for group in dependencies.groups:
        own = [_Elimination(reader, group) for reader in readers.values()]
        own = [each for each in own if len(each.costs)]
        if own:
            order, added = _eliminate(dependencies.count, group, own)
            found[order] = np.maximum.accumulate(added)
    return found


def _eliminate(
    count: int, group: Group, own: list["_Elimination"]
) -> tuple[list[int], list[float]]:
    left = set(group.classes.tolist())
    order: list[int] = []
    added: list[float] = []
    while left:
        total = np.zeros(count)
        for each in own:
            for name, cost in each.costs.items():
                total[name] += cost
        candidates = np.fromiter(left, dtype=np.int64)
        candidates.sort()
        least = int(candidates[np.argmin(total[candidates])])
        order.append(least)
        added.append(float(total[least]))
        left.remove(least)
        for each in own:
            each.remove(least)
    return order, added


class _Elimination:
    """One layer that loses a group's channels, block by block; ``costs`` by class."""

    def __init__(self, reader: Reader, group: Group) -> None:
        self.importance = reader.importance
        self.blocks: list[tuple[Tensor, Tensor, dict[int, Tensor]]] = []
        wanted = set(group.classes.tolist())
        for span, moments in zip(reader.spans, reader.moments, strict=True):
            columns: dict[int, list[int]] = {}
            for at, name in enumerate(reader.classes[span].tolist()):
                if name in wanted:
                    columns.setdefault(name, []).append(at)
            if columns:
                inverse = torch.linalg.inv(moments)
                index = {name: torch.tensor(each) for name, each in columns.items()}
                self.blocks.append((reader.weight[:, span].clone(), inverse, index))
        self.costs: dict[int, float] = {}
        self.parts = [self._costs(*block) for block in self.blocks]
        self._sum()

    def remove(self, name: int) -> None:
        """Take a class away and adapt the other columns."""
        for number, (weight, inverse, index) in enumerate(self.blocks):
            if name not in index:
                continue
            gone = index.pop(name)
            shift = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
            weight -= weight[:, gone] @ shift
            inverse -= inverse[:, gone] @ shift
            self.parts[number] = self._costs(weight, inverse, index)
        self._sum()

    def _costs(self, weight: Tensor, inverse: Tensor, index: dict[int, Tensor]) -> dict[int, float]:
        found: dict[int, float] = {}
        by_size: dict[int, list[int]] = {}
        for name, columns in index.items():
            by_size.setdefault(len(columns), []).append(name)
        for names in by_size.values():
            at = torch.stack([index[name] for name in names])  # (classes, columns of each)
            own = inverse[at.unsqueeze(2), at.unsqueeze(1)]
            slices = weight[:, at].permute(1, 2, 0)  # (classes, columns, rows)
            errors = (slices * torch.linalg.solve(own, slices)).sum(1)  # (classes, rows)
            found |= dict(zip(names, (errors @ self.importance).tolist(), strict=True))
        return found

    def _sum(self) -> None:
        self.costs = {}
        for part in self.parts:
            for name, cost in part.items():
                self.costs[name] = self.costs.get(name, 0.0) + cost


def reconstruct(small: nn.Module, keep: Keep, readers: Mapping[str, Reader]) -> list[str]:
    """Fit the weights of layers that read less to what they computed before; returns their names.

    ``small`` is the network after the cut that ``keep`` describes. With S the columns left,
    W_S becomes W H_S (H_SS)^-1, the least squares fit with a ridge towards the old weights;
    a bias takes up what is constant (He, Zhang and Sun 2017, arXiv:1707.06168, section 3.1).
    """
    fitted = []
    parameters = dict(small.named_parameters())
    for name, reader in readers.items():
        weight = parameters.get(f"{name}.weight")
        mask = keep.get((f"{name}.weight", 1))
        if weight is None or mask is None:
            continue
        wide = torch.from_numpy(np.repeat(mask, len(reader.classes) // len(mask)))
        rows = keep.get((f"{name}.weight", 0))
        old = reader.weight if rows is None else reader.weight[torch.from_numpy(rows)]
        new = torch.cat(
            [
                _fit(old[:, span], moments, wide[span])
                for span, moments in zip(reader.spans, reader.moments, strict=True)
            ],
            1,
        )
        with torch.no_grad():
            weight.copy_(new.reshape(weight.shape))
            bias = parameters.get(f"{name}.bias")
            if bias is not None:
                bias.add_((old @ reader.mean - new @ reader.mean[wide]).to(bias))
        fitted.append(name)
    return fitted


def _fit(weight: Tensor, moments: Tensor, kept: Tensor) -> Tensor:
    """(rows, columns) -> (rows, columns kept)."""
    if bool(kept.all()):
        return weight
    found: Tensor = torch.linalg.solve(moments[kept][:, kept], moments[kept] @ weight.T).T
    return found
