"""What computes a masked or shared weight from what is trained, as torch's parametrizations.

A *masked* weight is the dense weight where the mask holds and exactly +0 elsewhere; a *shared*
weight looks its value up in a codebook. Gradients follow by the chain rule: pruned weights get
none, and a centroid gets the sum over its cluster (Deep Compression, section 3.3).
"""

from typing import cast

import torch
from torch import Tensor, nn


class Masked(nn.Module):
    """weight -> weight where the mask holds, +0 elsewhere. ``mask``: bool, the weight's shape."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class Spliced(Masked):
    """The same values, but the gradient passes straight through to pruned weights too.

    So the dense weight behind the mask goes on learning, and a later mask may take it back: dynamic
    network surgery (Guo et al. 2016, arXiv:1608.04493, equation 2).
    """

    def forward(self, weight: Tensor) -> Tensor:
        # x - x is exactly +0, and only the first x has a gradient.
        return weight - torch.where(self.mask, 0.0, weight).detach()


class Scored(Masked):
    """The same values and gradients, with a score for each weight that is trained along.

    ``scores``: float32, the weight's shape, from 0. Its gradient is that of the masked weight times
    the dense weight, also where the mask does not hold, so gradient descent sums up -gradient x
    weight: what moves away from zero scores high (Sanh et al. 2020, arXiv:2005.07683, section 4).
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask)
        self.scores = nn.Parameter(torch.zeros(mask.shape, device=mask.device))

    def forward(self, weight: Tensor) -> Tensor:
        product = self.scores * weight.detach()
        return torch.where(self.mask, weight, 0.0) + (product - product.detach())


class _Lookup(torch.autograd.Function):
    """table[indices], with the gradient of each entry summed over the places that use it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *inputs: Tensor) -> Tensor:
        table, indices = inputs
        ctx.save_for_backward(indices)
        ctx.entries = table.numel()  # type: ignore[attr-defined]
        return table.index_select(0, indices.flatten()).view(indices.shape)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors  # type: ignore[attr-defined]
        total = grads[0].new_zeros(ctx.entries)  # type: ignore[attr-defined]
        return total.index_add_(0, indices.flatten(), grads[0].flatten()), None


class Shared(nn.Module):
    """codebook -> weight. ``indices``: int32, the weight's shape; 0 is a pruned weight, i > 0 is
    codebook[i - 1]. What is trained is the codebook, float32 (k,)."""

    indices: Tensor

    def __init__(self, indices: Tensor, codebook: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices.to(torch.int32))
        self._start = codebook

    def forward(self, codebook: Tensor) -> Tensor:
        table = torch.cat([codebook.new_zeros(1), codebook])  # (k + 1,)
        return cast(Tensor, _Lookup.apply(table, self.indices))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self._start.to(weight, copy=True)  # training must not write to the caller's tensor


class Nearest(nn.Module):
    """weight -> the nearest of a few shared values where the mask holds, +0 elsewhere.

    The gradient passes straight through to the weight behind, so that it may drift to another
    value. In training mode each use first moves every ``codebook`` entry, float32 (k,) ascending,
    to the mean of its weights: one Lloyd step.
    """

    mask: Tensor
    codebook: Tensor

    def __init__(self, mask: Tensor, codebook: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("codebook", codebook.sort().values)

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            labels = self.labels(weight)
            if self.training:
                self._move(weight[self.mask], labels[self.mask])
                labels = self.labels(weight)
            values = torch.where(self.mask, self.codebook[labels], 0.0)
        kept = torch.where(self.mask, weight, 0.0)
        return values + (kept - kept.detach())  # x - x is exactly +0, with the gradient of x

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def labels(self, weight: Tensor) -> Tensor:
        """The nearest entry of each weight, int64, the weight's shape; half-way, the lower."""
        return torch.bucketize(weight, (self.codebook[1:] + self.codebook[:-1]) / 2)

    def _move(self, weights: Tensor, labels: Tensor) -> None:
        sums, counts = torch.zeros_like(self.codebook), torch.zeros_like(self.codebook)
        sums.index_add_(0, labels, weights)
        counts.index_add_(0, labels, torch.ones_like(weights))
        means = torch.where(counts > 0, sums / counts.clamp(min=1), self.codebook)
        self.codebook.copy_(means.sort().values)
