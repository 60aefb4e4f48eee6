"""The scales of batch norms: what network slimming has made of them (Liu et al. 2017, figure 4)."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.errors import UsageError
from compressor.layers import batch_norms
from compressor.reporting import figures

Scales = dict[str, NDArray[np.float32]]
BINS = 60
_DASHES = ("--", ":", "-.")


def scales(module: nn.Module) -> Scales:
    """|gamma| of every batch norm that has a weight: its name -> float32 (C,)."""
    return {
        name: np.abs(norm.weight.detach().float().cpu().numpy())
        for name, norm in batch_norms(module).items()
        if norm.weight is not None
    }


def threshold(found: Mapping[str, NDArray[np.float32]], fraction: float) -> float:
    """The scale below which ``fraction`` (0 to 1) of all layers' channels lie (section 3.3)."""
    return float(np.quantile(_pooled(found), fraction))


def draw(
    networks: Mapping[str, Mapping[str, NDArray[np.float32]]],
    path: Path,
    fractions: Sequence[float] = (0.5, 0.9),
) -> None:
    """A histogram over all channels of each of ``networks`` (label -> its scales), overlaid.

    Upright lines stand at each network's thresholds for ``fractions``. ``path`` ends in .svg,
    .png or .pdf; the same scales give the same file. Raises :class:`UsageError` where matplotlib
    (the extra ``plots``) is not installed, or where a network has no scale.
    """
    pooled = {label: _pooled(found) for label, found in networks.items()}
    if not pooled or not all(len(values) for values in pooled.values()):
        raise UsageError("there are no scales to draw: the network has no batch norm with weights")
    figure, axes = figures.new()
    edges = np.linspace(
        0, max(float(values.max()) for values in pooled.values()), BINS + 1
    ).tolist()
    for number, (label, values) in enumerate(pooled.items()):
        color = f"C{number}"
        axes.hist(values, edges, histtype="stepfilled", alpha=0.15, color=color)
        axes.hist(values, edges, histtype="step", color=color, label=label)
        for dashes, fraction in zip(itertools.cycle(_DASHES), fractions, strict=False):
            at = threshold(networks[label], fraction)
            text = f"  {100 * fraction:g} % below {at:.3g}"
            axes.axvline(at, color=color, linestyle=dashes, linewidth=1, label=text)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel("scale of a channel, |γ|")
    axes.set_ylabel("channels")
    axes.legend(fontsize=8)
    figures.save(figure, path)


def _pooled(found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([*found.values(), np.zeros(0, np.float32)])
