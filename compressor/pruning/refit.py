"""The weights that are left, fitted to what the dense network computes: no label, no gradient.

A layer of the pruned network reads x, its twin in the dense network x*. Row by row the weights w
that are left take the place of the dense row w* at the least squared error

    mean over positions of (w* . x* - w . x)^2  +  ridge * |w - w'|^2

where w' is what they were. With H the second moments of x and S the weights left this is the closed
form of all steps of Optimal Brain Surgeon in one (Frantar and Alistarh 2022, arXiv:2208.11580,
section 4), but towards the outputs before pruning: layers are fitted in the order in which they
run, each to the inputs that those fitted before it give, so errors do not add up (He, Zhang and Sun
2017, arXiv:1707.06168, section 3.2; Frantar and Alistarh 2022, section 6, sequential OBC).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from compressor.layers import Layer, single_layers, trained_weight
from compressor.network import Context
from compressor.pruning.curvature import images
from compressor.quantization.sensitivity import blocks, layout, measured, unblocks

IMAGES = 500
RIDGE = 0.01
"""Of the mean second moment of a layer's inputs: bounds what is made of inputs that hardly vary."""
_BATCH = 100
_ENTRIES = 1 << 23  # of the systems that are solved together


@dataclass(frozen=True)
class Moments:
    """Of one layer's inputs in ``b`` blocks of columns (`sensitivity.blocks`), all float64.

    Attributes:
        own: (b, columns, columns) mean of x x', what the pruned network's layer reads.
        cross: (b, columns, columns) mean of x* x', what the dense network's reads with it.
        means: x and x* on average, (b, columns) each.
    """

    own: Tensor
    cross: Tensor
    means: tuple[Tensor, Tensor]

    def centred(self) -> "Moments":
        """About the means: for a layer whose bias takes up what is constant."""
        x, dense = self.means
        own = self.own - x.unsqueeze(2) * x.unsqueeze(1)
        return Moments(own, self.cross - dense.unsqueeze(2) * x.unsqueeze(1), self.means)


def refit(
    module: nn.Module, dense: nn.Module, wanted: Iterable[str], context: Context
) -> list[str]:
    """Fit the ``wanted`` layers of ``module`` to the same of ``dense``; the names of those fitted.

    Weights that are zero stay zero. Left alone are layers that run more than once or not at all,
    or whose inputs `sensitivity.measured` cannot lay out. `IMAGES` training images are run through
    both networks once for each layer, as far as that layer. Leaves both in evaluation mode.
    """
    module.eval()
    dense.eval()
    layers, twins = single_layers(module), single_layers(dense)
    names = _order(
        module, {n: layers[n] for n in wanted if n in layers and measured(layers[n])}, context
    )
    with context.progress.task("fit to the dense network", len(names)) as advance:
        for name in names:
            moments = _measure((module, dense), (layers[name], twins[name]), context)
            _fit(layers[name], twins[name], moments)
            advance(name)
    return names


def _fit(layer: Layer, twin: Layer, moments: Moments) -> None:
    bias = cast("Tensor | None", layer.module.bias)
    if bias is not None:
        moments = moments.centred()
    old = blocks(twin, twin.weight).double().cpu()  # (b, rows, columns)
    now = blocks(layer, layer.weight).double().cpu()
    new = solve(old, now, moments)
    with torch.no_grad():
        trained_weight(layer).copy_(unblocks(layer, new))
        if bias is not None:
            x, dense = moments.means
            shift = (old @ dense.unsqueeze(2) - new @ x.unsqueeze(2)).squeeze(2)  # (b, rows)
            groups = int(getattr(layer.module, "groups", 1))
            twin_bias = cast(Tensor, twin.module.bias)
            total = shift.reshape(groups, -1, shift.shape[1]).sum(1).flatten()
            bias.copy_(twin_bias.detach() + total.to(bias))


def solve(old: Tensor, now: Tensor, moments: Moments) -> Tensor:
    """The fitted rows of each block: ``old`` and ``now`` (b, rows, columns) of the dense and the
    pruned network, whose zeros stay."""
    size = now.shape[2]
    floor = torch.diagonal(moments.own, dim1=1, dim2=2).mean(1).clamp_min(1e-30) * RIDGE
    system = moments.own + floor.view(-1, 1, 1) * torch.eye(size, dtype=torch.float64)
    wanted = old @ moments.cross + floor.view(-1, 1, 1) * now  # (b, rows, columns)
    found = torch.zeros_like(now)
    for block in range(len(now)):
        counts = (now[block] != 0).sum(1)
        order = torch.argsort(counts, stable=True)
        for rows in _batched(order, counts):
            most = int(counts[rows].max())
            kept = now[block, rows] != 0
            index = torch.argsort(kept, dim=1, descending=True, stable=True)[:, :most]
            valid = kept.gather(1, index)
            own = system[block][index.unsqueeze(2), index.unsqueeze(1)]
            own = torch.where(valid.unsqueeze(2) & valid.unsqueeze(1), own, 0.0)
            own = own + torch.diag_embed((~valid).double())  # filling, where a row has fewer
            right = torch.where(valid, wanted[block, rows].gather(1, index), 0.0)
            root = torch.linalg.cholesky(own)
            fitted = torch.cholesky_solve(right.unsqueeze(2), root).squeeze(2)
            found[block, rows] = found[block, rows].scatter(1, index, fitted)
    return found


def _batched(order: Tensor, counts: Tensor) -> Iterator[Tensor]:
    """Rows with weights left, of nearly equal numbers, as many at once as there is memory for."""
    rows = order[counts[order] > 0]
    while len(rows):
        first = int(counts[rows[-1]])  # the most of all that are left: they are in ascending order
        size = max(1, _ENTRIES // first**2)
        yield rows[-size:]
        rows = rows[:-size]


class _Reached(Exception):
    """The layer has been reached: nothing behind it matters."""


def _order(module: nn.Module, layers: dict[str, Layer], context: Context) -> list[str]:
    """The layers that run just once, in the order in which they do."""
    calls: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: calls.append(name)

    hooks = [layer.module.register_forward_pre_hook(note(n)) for n, layer in layers.items()]
    try:
        with torch.no_grad():
            module(next(images(context, 1, 1)))
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in calls if calls.count(name) == 1]


def _measure(
    networks: tuple[nn.Module, nn.Module], pair: tuple[Layer, Layer], context: Context
) -> Moments:
    own = cross = first = second = torch.zeros(())
    count = 0
    generator = torch.Generator().manual_seed(context.seed)
    with torch.no_grad():
        for x in images(context, IMAGES, _BATCH):
            state = generator.get_state()
            read = _columns(networks[0], pair[0], x, generator)  # (b, positions, columns)
            generator.set_state(state)  # the same positions of both
            meant = _columns(networks[1], pair[1], x, generator)
            own = own + (read.transpose(1, 2) @ read).double()
            cross = cross + (meant.transpose(1, 2) @ read).double()
            first, second = first + read.double().sum(1), second + meant.double().sum(1)
            count += read.shape[1]
    means = (first / count, second / count)
    return Moments(own / count, cross / count, means)


def _columns(module: nn.Module, layer: Layer, x: Tensor, generator: torch.Generator) -> Tensor:
    """What the layer reads of a batch, laid out; the network runs no further than there."""
    found: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(layout(layer.module, inputs[0], generator))
        raise _Reached

    hook = layer.module.register_forward_pre_hook(stop)
    try:
        module(x)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0].cpu()
