"""Settings of weight pruning."""

from dataclasses import dataclass

from compressor.per_layer import PerLayer
from compressor.settings.checks import Rules, integer, number, settle
from compressor.settings.training import Training


def parse_sensitivity(value: object) -> float:
    """A prune sensitivity: a finite number of standard deviations, at least 0."""
    return number("prune sensitivity", value, 0.0, 1e6)


@dataclass(frozen=True)
class Prune:
    """Stage 1 (Deep Compression, section 2): prune by threshold, then retrain what is left.

    ``sensitivity`` times the standard deviation of a layer's weights is its threshold. With
    ``rounds`` above 1 the sensitivity rises to its value in equal steps, each followed by
    ``retrain``, as the paper prunes iteratively (Han et al. 2015, section 3.3).
    """

    sensitivity: Rules = 0.25
    rounds: int = 1
    retrain: Training = Training()

    def __post_init__(self) -> None:
        settle(self, sensitivity=self.rules, rounds=integer("prune.rounds", self.rounds, 1, 1000))

    @property
    def rules(self) -> PerLayer:
        """The sensitivity of each layer."""
        return PerLayer.parse(self.sensitivity, parse_sensitivity)
