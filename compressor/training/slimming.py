"""Network slimming: scales of batch norms that want to be zero (Liu et al. 2017, arXiv:1708.06519).

The penalty lambda * sum |gamma| (equation 1) is added as its subgradient, lambda * sign(gamma),
after the loss's own: 0 at 0, so a scale that has got there stays unless the loss moves it. It is
no part of the loss that is reported.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.layers import batch_norms


def scales(module: nn.Module) -> list[nn.Parameter]:
    """The weights (C,) of all batch norms that have one; raises StageError where none has."""
    norms = batch_norms(module).values()
    found = [norm.weight for norm in norms if norm.weight is not None]
    if not found:
        raise StageError("slimming acts on scales of batch norms, and this network has none")
    return found


def penalise(weights: Iterable[Tensor], slimming: float) -> None:
    """Add ``slimming`` times the sign to each weight's gradient; those without gradient stay."""
    with torch.no_grad():
        for weight in weights:
            if weight.grad is not None:
                weight.grad.add_(weight.sign(), alpha=slimming)
