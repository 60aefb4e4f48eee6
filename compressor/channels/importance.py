"""What each channel is worth, by one of the criteria of the literature.

A score belongs to a class of channels: everything that one decision removes counts together, the
layers that make the channels and those that read them alike (group importance: Fang et al. 2023,
"DepGraph", section 3.4). Scores of different groups are comparable only after
:func:`normalised`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.channels import surgery
from compressor.channels.dependencies import Dependencies, Group
from compressor.channels.moments import Reader
from compressor.errors import StageError
from compressor.settings import Criterion
from compressor.tasks import CLASSIFICATION, Task

Scores = NDArray[np.float64]
"""One for every class; NaN where the criterion has nothing to say."""

Statistic = Callable[[str, int, Tensor], Tensor | None]
"""(name, axis, tensor) -> what every index of that axis is worth, (n,), or None."""


def importance(
    dependencies: Dependencies,
    module: nn.Module,
    criterion: Criterion,
    *,
    batches: Iterator[tuple[Tensor, Tensor]] | None = None,
    readers: Mapping[str, Reader] | None = None,
    seed: int = 0,
    task: Task = CLASSIFICATION,
) -> Scores:
    """The score of every class; higher is worth more.

    "l2" and "l1" sum squares or magnitudes of all weights that stand or fall with a channel; "next"
    takes the squared Frobenius norm of the slices that read it only; "gamma" sums the magnitudes of
    its batch-norm scales (Liu et al. 2017); "taylor" is the squared first-order change of the loss
    on ``batches`` (Molchanov et al. 2019, equation 8); "obs" is what the outputs lose where those
    layers adapt that ``readers`` has (``surgery.py``); "random" is the control.
    Raises :class:`StageError` for "taylor" without batches and "obs" without readers.
    """
    if criterion == "random":
        return np.random.default_rng(seed).random(dependencies.count)
    if criterion == "taylor":
        if batches is None:
            raise StageError("the criterion taylor needs data: give --data")
        return _taylor(dependencies, module, batches, task.loss)
    if criterion == "obs":
        if not readers:
            raise StageError(
                "the criterion obs needs data (--data) and layers whose inputs it can measure: "
                "give --criterion l2"
            )
        return surgery.scores(dependencies, readers)
    return summed(dependencies, module, _statistic(dependencies, module, criterion))


def _statistic(dependencies: Dependencies, module: nn.Module, criterion: Criterion) -> Statistic:
    made = set(dependencies.graph.makers)
    norms = {
        f"{name}.weight"
        for name, child in module.named_modules(remove_duplicate=False)
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
    }

    def l1(name: str, axis: int, tensor: Tensor) -> Tensor | None:
        return _others(tensor.abs(), axis) if tensor.ndim > 1 else None

    def l2(name: str, axis: int, tensor: Tensor) -> Tensor | None:
        return _others(tensor.square(), axis) if tensor.ndim > 1 else None

    def following(name: str, axis: int, tensor: Tensor) -> Tensor | None:
        return None if (name, axis) in made else l2(name, axis, tensor)

    def gamma(name: str, axis: int, tensor: Tensor) -> Tensor | None:
        return tensor.abs() if name in norms else None

    table: dict[str, Statistic] = {"l1": l1, "l2": l2, "next": following, "gamma": gamma}
    return table[criterion]


def summed(dependencies: Dependencies, module: nn.Module, statistic: Statistic) -> Scores:
    """A statistic of every parameter's slices, summed up by class."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    total = np.zeros(dependencies.count)
    known = np.zeros(dependencies.count, dtype=bool)
    for (name, axis), classes in dependencies.axes.items():
        if name not in parameters:
            continue
        worth = statistic(name, axis, parameters[name].detach().double().cpu())
        if worth is not None:
            np.add.at(total, classes, worth.numpy())
            known[classes] = True
    total[~known] = np.nan
    return total


def _taylor(
    dependencies: Dependencies,
    module: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    loss: Callable[[Any, Tensor], Tensor],
) -> Scores:
    """The mean over batches of (sum of gradient x weight over what reads a channel)^2."""
    module.eval()
    total, count = np.zeros(dependencies.count), 0
    for x, y in batches:
        module.zero_grad(set_to_none=True)
        loss(module(x), y).backward()  # type: ignore[no-untyped-call]
        total += summed(dependencies, module, _first_order(dependencies, module)) ** 2
        count += 1
    module.zero_grad(set_to_none=True)
    return total / max(1, count)


def _first_order(dependencies: Dependencies, module: nn.Module) -> Statistic:
    gradients = {
        name: value.grad.double().cpu()
        for name, value in module.named_parameters(remove_duplicate=False)
        if value.grad is not None
    }
    made = set(dependencies.graph.makers)

    def change(name: str, axis: int, tensor: Tensor) -> Tensor | None:
        # Of what reads a channel, gradient x weight is the derivative by a gate in front of it.
        if (name, axis) in made or tensor.ndim < 2 or name not in gradients:
            return None
        return _others(tensor * gradients[name], axis)

    return change


def _others(tensor: Tensor, axis: int) -> Tensor:
    """Sums over all axes but one: (n,)."""
    return (
        tensor.sum([at for at in range(tensor.ndim) if at != axis]) if tensor.ndim > 1 else tensor
    )


def normalised(groups: list[Group], scores: Scores) -> Scores:
    """Scores as multiples of their group's mean, so that groups can be compared."""
    found = scores.astype(np.float64)
    for group in groups:
        mean = float(np.mean(found[group.classes]))
        if np.isfinite(mean) and mean > 0:
            found[group.classes] /= mean
    return found
