"""Optimal Brain Surgeon on blocks of weights: what the outputs lose by each weight's removal.

Around a trained network the mean squared change of its outputs is close to d' F d for a small
change d of the weights. F is the mean over images of g g', where g is the gradient of a random
signed sum of the outputs: the empirical Fisher of the outputs, which needs no label
(`curvature.py`). Only blocks of consecutive weights of a layer are kept of it (Singh and Alistarh
2020, "WoodFisher", arXiv:2004.14340, section 3; Kurtic et al. 2022, "oBERT", arXiv:2203.07259,
section 3).

With P the inverse of a block, removing weight q at the least loss costs w_q^2 / P_qq, and the
others of the block move by -w_q P e_q / P_qq (Hassibi and Stork 1993). Weights go one after
another within a block, cheapest first, each seeing what those before it have moved: the exact
greedy order of Frantar and Alistarh 2022 ("OBC", arXiv:2208.11580, section 4), so that of two
weights which stand in for each other only one is cheap.
"""

import math

import torch
from torch import Tensor

DAMPING = 3e-3
"""Of a layer's mean curvature, added to each weight's own: images are few, and some tell little."""
GONE = -1.0
"""The cost of a weight that is no longer there: under any that a removal can have."""
_AT_ONCE = 1 << 20  # entries of blocks that are eliminated together: they stay in the cache


def cut(flat: Tensor, size: int) -> Tensor:
    """(n,) -> (ceil(n / size), size), filled up with zeros."""
    count = math.ceil(len(flat) / size)
    return torch.nn.functional.pad(flat, (0, count * size - len(flat))).reshape(count, size)


def removal_costs(curvature: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
    """What each weight's removal costs, float64 (n,).

    ``curvature`` is F in blocks, (b, size, size), ``weights`` is (n,) and ``kept`` bool (n,), with
    n at most b * size. In a block costs rise in the order in which its weights go, so that
    whatever threshold is taken removes the first of them. What is not kept costs `GONE`.
    """
    count, size = len(weights), curvature.shape[1]
    blocks, alive = cut(weights.double(), size), cut(kept, size)
    # Of the layer as a whole: a block that no image has told anything about is not free.
    middle = float(torch.diagonal(curvature, dim1=1, dim2=2).double().sum()) / max(count, 1)
    ridge = max(DAMPING * middle, torch.finfo(torch.float64).tiny * 1e16)
    parts = [
        _eliminate(_inverse(f, keep, ridge), w, keep)
        for f, w, keep in zip(
            *(torch.split(t, max(1, _AT_ONCE // size**2)) for t in (curvature, blocks, alive)),
            strict=True,
        )
    ]
    return torch.cat(parts).flatten()[:count]


def _inverse(curvature: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """The inverse of each block, damped, among the weights that are kept; diagonal elsewhere."""
    among = kept.unsqueeze(2) & kept.unsqueeze(1)
    damped = torch.where(among, curvature.double(), 0.0)
    torch.diagonal(damped, dim1=1, dim2=2).add_(ridge)
    return torch.cholesky_inverse(torch.linalg.cholesky(damped))


def _eliminate(inverse: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
    """`removal_costs` of blocks (b, size) by their inverse curvature, which is used up."""
    weights, alive = weights.clone(), kept.clone()
    costs = torch.full_like(weights, GONE)
    highest = weights.new_zeros(len(weights))
    every = torch.arange(len(weights))
    for _ in range(int(kept.sum(1).max())):
        spread = torch.diagonal(inverse, dim1=1, dim2=2)  # (b, size)
        cost, least = torch.where(alive, weights**2 / spread, torch.inf).min(1)
        left = torch.isfinite(cost)
        highest = torch.where(left, torch.maximum(highest, cost), highest)
        costs[every[left], least[left]] = highest[left]
        alive[every[left], least[left]] = False
        column = inverse[every, :, least]  # (b, size)
        scale = torch.where(left, 1 / spread[every, least], 0.0)
        weights = weights - column * (weights[every, least] * scale).unsqueeze(1)
        inverse.sub_(column.unsqueeze(2) * (column * scale.unsqueeze(1)).unsqueeze(1))
    return costs
