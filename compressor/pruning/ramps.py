"""Pruning while training: the goal rises along a cubic, and masks follow every few steps.

Zhu and Gupta 2017 (arXiv:1710.01878, equation 1), from a sparsity of 0. What is worth keeping is
told by magnitude ("gradual"), by magnitude of weights that learn on behind the mask ("splicing") or
by movement ("movement"). All that decides is in the masked layers, so masks are a function of what
the network holds, and equal networks have equal masks.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.layers import (
    Layer,
    behind_mask,
    change_mask,
    mask_layer,
    mask_of,
    scores_of,
)
from compressor.parametrizations import Masked, Scored, Spliced
from compressor.pruning.allocation import Masks, sparsity
from compressor.pruning.goals import Goal, magnitude_masks
from compressor.pruning.rate import rate_aware
from compressor.settings import Prune

KINDS: Mapping[str, type[Masked]] = {"gradual": Masked, "splicing": Spliced, "movement": Scored}


def cubic(progress: float) -> float:
    """The part of the goal that holds at ``progress`` (0 to 1) of the ramp: 1 - (1 - t)^3."""
    return 1 - (1 - progress) ** 3


class Ramp:
    """Masks on ``layers`` that move towards ``goal`` as it is called after each step (``fit``).

    ``sparsities`` is that of all these layers together at the end of each epoch so far: the only
    state that is not the network's.
    """

    def __init__(self, layers: Mapping[str, Layer], goal: Goal, settings: Prune) -> None:
        self.layers = {name: layers[name] for name in goal.values}
        self.goal, self.settings = goal, settings
        self.sparsities: dict[int, float] = {}
        # Nothing scores yet by movement; by magnitude a ramp of no length has arrived.
        start = goal.part(0.0 if settings.ramp else 1.0)
        for name, mask in magnitude_masks(start, layers).items():
            there = torch.from_numpy(mask).to(layers[name].weight.device)
            mask_layer(layers[name], there, KINDS[settings.schedule])

    def __call__(self, done: int, steps: int) -> None:
        """New masks where they are due after ``done`` of ``steps`` steps."""
        settings = self.settings
        ramp = max(1, int(settings.ramp * steps))
        last = ramp
        if settings.schedule != "gradual":
            last = max(ramp, int((1 - settings.freeze) * steps))
        due = done <= last and (done % settings.every == 0 or done in (ramp, last))
        if due:
            self._update(cubic(min(1.0, done / ramp)))
        epoch = math.ceil(done * settings.retrain.epochs / steps)
        if due or epoch not in self.sparsities:
            self.sparsities[epoch] = self._sparsity()

    def state_dict(self) -> dict[str, Any]:
        return {"sparsities": dict(self.sparsities)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sparsities = dict(state["sparsities"])

    def finish(self, *, trained: bool) -> None:
        """Leave plain masks behind; where nothing was ``trained``, those of the whole goal."""
        if not trained:
            self._update(1.0)
        for layer in self.layers.values():
            mask_layer(layer, _mask(layer))

    def _update(self, part: float) -> None:
        for name, mask in self._masks(self.goal.part(part)).items():
            change_mask(self.layers[name], torch.from_numpy(mask))

    def _masks(self, goal: Goal) -> Masks:
        if self.settings.schedule == "movement":
            return goal.masks({n: scores_of(each).cpu().numpy() for n, each in self.layers.items()})
        if self.settings.schedule == "splicing":
            return goal.masks({n: self._spliced(each) for n, each in self.layers.items()})
        return magnitude_masks(goal, self.layers, self.settings.rate)

    def _spliced(self, layer: Layer) -> NDArray[np.float64]:
        """Magnitudes, raised where a weight is kept and lowered where it is not.

        |w| / (1 - h) >= t keeps and |w| / (1 + h) >= t takes back: the two thresholds a and b of
        Guo et al. 2016 (equation 3), in a form that allocation can rank.
        """
        size, kept = self.settings.hysteresis, _mask(layer).cpu().numpy()
        magnitudes = np.abs(behind_mask(layer).cpu().numpy().astype(np.float64))
        scores = rate_aware(magnitudes, kept, self.settings.rate)
        return scores / np.where(kept, 1 - size, 1 + size)

    def _sparsity(self) -> float:
        return sparsity({name: _mask(each).cpu().numpy() for name, each in self.layers.items()})


def _mask(layer: Layer) -> Tensor:
    return cast(Tensor, mask_of(layer))  # __init__ has put one on
