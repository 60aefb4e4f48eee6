"""The scales of batch norms: what network slimming has made of them (Liu et al. 2017, figure 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.errors import UsageError
from compressor.files import write_atomically
from compressor.layers import batch_norms
from compressor.reporting import svg
from compressor.reporting.axes import Axis
from compressor.reporting.svg import Chart

Scales = dict[str, NDArray[np.float32]]
BINS = 60


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

    Dashed lines stand at each network's thresholds for ``fractions``. ``path`` is an SVG file; the
    same scales give the same file. Raises :class:`UsageError` where a network has no scale.
    """
    pooled = {label: _pooled(found) for label, found in networks.items()}
    if not pooled or not all(len(values) for values in pooled.values()):
        raise UsageError("there are no scales to draw: the network has no batch norm with weights")
    most = max(float(values.max()) for values in pooled.values())
    edges = np.linspace(0, most or 1.0, BINS + 1)
    counts = {label: np.histogram(values, edges)[0] for label, values in pooled.items()}
    highest = max(int(each.max()) for each in counts.values())
    told = "; ".join(f"{label}: {len(values):,} scales" for label, values in pooled.items())
    chart = Chart(
        "Scales of batch norms",
        told,
        Axis("scale of a channel, |γ|", 0, float(edges[-1])),
        Axis("channels, logarithmic", 0.7, max(1.0, highest), log=True),
        "scales",
        height=320,
        width=560,
    )
    for color, (label, found) in enumerate(counts.items()):
        chart.steps(edges.tolist(), found.tolist(), color, wash=True)
        chart.named(color, label)
        for dash, fraction in enumerate(fractions, 1):
            at = threshold(networks[label], fraction)
            chart.upright(at, color, dash)
            chart.named(color, f"{100 * fraction:g} % below {at:.3g}", f" dash{1 + (dash - 1) % 3}")
    write_atomically(path, svg.file(chart.done()).encode())


def _pooled(found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([*found.values(), np.zeros(0, np.float32)])
