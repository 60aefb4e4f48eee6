"""Goals: what is to be pruned in the end, on the way there, and the masks that say so.

There are two kinds, thresholds and sparsities, and schedules treat them alike: a goal gives the
goal of a round, that of a part of the way, and masks for scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from compressor.errors import StageError
from compressor.layers import Layer
from compressor.pruning.allocation import Masks, Scores, allocate
from compressor.pruning.rate import rate_aware
from compressor.pruning.thresholds import deviation, magnitude_mask
from compressor.settings import Prune

Row = dict[str, float]


@dataclass(frozen=True)
class Thresholds:
    """Weights of a score under their layer's threshold go, and so do zeros."""

    values: Mapping[str, float]
    sensitivities: Mapping[str, float]

    def in_round(self, step: int, rounds: int) -> "Thresholds":
        """Equal steps: threshold x step / rounds."""
        return self.part(step / rounds)

    def part(self, fraction: float) -> "Thresholds":
        scaled = {name: value * fraction for name, value in self.values.items()}
        return Thresholds(scaled, self.sensitivities)

    def masks(self, scores: Scores) -> Masks:
        return {n: magnitude_mask(scores[n], value, n) for n, value in self.values.items()}

    def row(self, name: str) -> Row:
        """What a report says of a layer's goal."""
        return {"sensitivity": self.sensitivities[name], "threshold": self.values[name]}


@dataclass(frozen=True)
class Sparsities:
    """The lowest scores go, so many of them that the sparsity is met (``allocation.py``)."""

    values: Mapping[str, float]
    scope: str = "layer"

    def in_round(self, step: int, rounds: int) -> "Sparsities":
        """Equal factors on what is left: 1 - (1 - s)^(step / rounds).

        Each round prunes the same fraction x of what the last one left, with (1 - x)^n = 1 - s.
        """
        if step == rounds:  # where the power would be off by a rounding
            return self
        return self._each(lambda sparsity: 1 - (1 - sparsity) ** (step / rounds))

    def part(self, fraction: float) -> "Sparsities":
        return self._each(lambda sparsity: sparsity * fraction)

    def masks(self, scores: Scores) -> Masks:
        masks = allocate({name: scores[name] for name in self.values}, self.values, self.scope)
        for name, mask in masks.items():
            if mask.size and not mask.any():
                raise StageError(
                    f"{name} would vanish: all its {mask.size:,} weights would be pruned; lower "
                    f"the sparsity ({self.values[name]:g}), name the layers to prune without it, "
                    "or share the sparsity out in another way (--scope)"
                )
        return masks

    def row(self, name: str) -> Row:
        """What a report says of a layer's goal."""
        return {"target": self.values[name]}

    def _each(self, change: Callable[[float], float]) -> "Sparsities":
        return Sparsities({n: change(value) for n, value in self.values.items()}, self.scope)


Goal = Thresholds | Sparsities


def goal_of(layers: Mapping[str, Layer], settings: Prune) -> Goal:
    """The goal that ``settings`` sets for the layers that its rules name.

    A threshold is the sensitivity times the standard deviation of the weights as they are now.
    Raises :class:`StageError` for a rule that fits no layer and for weights that are not finite.
    """
    wanted = settings.rules.resolve({name: layer.kind for name, layer in layers.items()})
    deviations = {name: deviation(layers[name].weight.cpu().numpy(), name) for name in wanted}
    if settings.sparsity is not None:
        return Sparsities(wanted, settings.scope)
    return Thresholds({name: wanted[name] * deviations[name] for name in wanted}, wanted)


def magnitude_masks(goal: Goal, layers: Mapping[str, Layer], rate: float = 0.0) -> Masks:
    """The masks of ``goal`` by magnitude, on the CPU. What is zero already stays pruned.

    With a ``rate``, magnitudes count by what their positions cost (``rate.py``).
    """
    alone = isinstance(goal, Thresholds) or goal.scope == "layer"
    masks: Masks = {}
    # Layer by layer where none looks at another: large networks have no room for all scores.
    for part in [{name: value} for name, value in goal.values.items()] if alone else [goal.values]:
        weights = {name: layers[name].weight.cpu().numpy() for name in part}
        scores = {n: rate_aware(abs(w), w != 0, rate) for n, w in weights.items()}
        for name, mask in replace(goal, values=part).masks(scores).items():
            masks[name] = mask & (weights[name] != 0)
    return masks
