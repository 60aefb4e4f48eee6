"""Settings of weight pruning."""

import typing
from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.per_layer import PerLayer
from compressor.settings.checks import Rules, choice, integer, number, removed, settle
from compressor.settings.training import Training

Allocation = typing.Literal["layer", "global", "erk", "lamp"]
Schedule = typing.Literal["rounds", "gradual", "splicing", "movement"]

Worth = typing.Literal["magnitude", "obs"]

ALLOCATIONS = ("layer", "global", "erk", "lamp")
SCHEDULES = ("rounds", "gradual", "splicing", "movement")
WORTHS = ("magnitude", "obs")
SENSITIVITY = 0.25


def parse_sensitivity(value: object) -> float:
    """A prune sensitivity: a finite number of standard deviations, at least 0."""
    return number("prune sensitivity", value, 0.0, 1e6)


def parse_sparsity(value: object) -> float:
    """A fraction of weights to prune: between 0 and 1, both excluded."""
    return removed("prune.sparsity", value, "weights to prune")


@dataclass(frozen=True)
class Prune:
    """Stage 1 (Deep Compression, section 2): prune by threshold, then retrain what is left.

    How much: ``sensitivity`` times the standard deviation of a layer's weights is its threshold
    (0.25 where nothing is said), or ``sparsity`` is the fraction of weights to prune, smallest
    first. ``scope`` says how the sparsity is shared out: "layer" prunes so much of each layer,
    "global" of all together, "erk" by the layers' shapes and "lamp" by layer-adaptive scores
    (``pruning/allocation.py``); all but the first take one sparsity.

    What goes: the smallest, or where ``criterion`` is "obs" what the outputs lose least by, on some
    training images without their labels (``pruning/second_order.py``); then what is left is fitted
    to what the dense network computes (``pruning/refit.py``), so that retraining may be left out.

    When: ``schedule`` "rounds" prunes in ``rounds`` steps, each followed by ``retrain``, as the
    paper does (Han et al. 2015, section 3.3). The others prune within one ``retrain``, every
    ``every`` steps (``pruning/ramps.py``): over its first part, ``ramp``, the goal rises along a
    cubic. "gradual" goes by magnitude, and what is pruned stays so. "splicing" lets pruned weights
    return, where a weight must pass the threshold by the fraction ``hysteresis`` to change sides.
    "movement" keeps what retraining moves away from zero. The last two leave masks as they are
    over the last part of the retraining, ``freeze``. ``rate`` over 0 lowers the scores of weights
    that stand alone in their row or column, where they cost the most bits (``pruning/rate.py``), to
    that power.
    """

    sensitivity: Rules | None = None
    sparsity: Rules | None = None
    scope: Allocation = "layer"
    criterion: Worth = "magnitude"
    schedule: Schedule = "rounds"
    rounds: int = 1
    ramp: float = 0.5
    every: int = 20
    hysteresis: float = 0.1
    freeze: float = 0.25
    rate: float = 0.0
    retrain: Training = Training()

    def __post_init__(self) -> None:
        choice("prune.scope", self.scope, ALLOCATIONS)
        choice("prune.schedule", self.schedule, SCHEDULES)
        choice("prune.criterion", self.criterion, WORTHS)
        if self.sparsity is None:
            given = SENSITIVITY if self.sensitivity is None else self.sensitivity
            settle(self, sensitivity=PerLayer.parse(given, parse_sensitivity))
        elif self.sensitivity is None:
            settle(self, sparsity=PerLayer.parse(self.sparsity, parse_sparsity))
        else:
            raise UsageError(
                "prune: give one of sensitivity (--prune-sensitivity 0.25) and sparsity "
                "(--sparsity 0.9)"
            )
        settle(
            self,
            rounds=integer("prune.rounds", self.rounds, 1, 1000),
            ramp=number("prune.ramp", self.ramp, 0.0, 0.99),
            every=integer("prune.every", self.every, 1, 1_000_000),
            hysteresis=number("prune.hysteresis", self.hysteresis, 0.0, 0.99),
            freeze=number("prune.freeze", self.freeze, 0.0, 0.99),
            rate=number("prune.rate", self.rate, 0.0, 10.0),
        )
        self._check_together()

    def _check_together(self) -> None:
        """Settings that are right each but not beside one another."""
        if self.scope != "layer" and len({value for _, value in self.rules.rules}) > 1:
            raise UsageError(
                f"prune.scope {self.scope} takes one sparsity for all layers that the rules name"
            )
        if self.criterion == "obs" and (self.scope == "lamp" or self.schedule != "rounds"):
            raise UsageError(
                f"prune.criterion obs does not go with prune.scope {self.scope} and prune.schedule "
                f"{self.schedule}: give scope layer, global or erk, and schedule rounds"
            )
        for name, value in (
            ("scope", self.scope),
            ("schedule", self.schedule),
            ("criterion", self.criterion),
        ):
            if value in ("global", "erk", "lamp", "movement", "obs") and self.sparsity is None:
                raise UsageError(
                    f"prune.{name} {value} goes by sparsity, not by sensitivity: give "
                    "prune.sparsity (--sparsity 0.9)"
                )
        if self.schedule == "rounds":
            return
        if self.rounds != 1:
            raise UsageError(
                f"prune.rounds is {self.rounds}, but prune.schedule {self.schedule} prunes within "
                "one retraining: leave rounds out"
            )
        if self.schedule != "gradual" and self.ramp + self.freeze > 1:
            raise UsageError(
                f"prune.ramp ({self.ramp:g}) and prune.freeze ({self.freeze:g}) are parts of one "
                "retraining: together at most 1"
            )
        if self.schedule == "movement" and self.retrain.epochs == 0:
            raise UsageError("prune.schedule movement needs retraining: prune.retrain.epochs is 0")
        if self.schedule == "movement" and self.ramp == 0:
            raise UsageError("prune.schedule movement needs time to see it: prune.ramp is 0")
        if self.schedule == "movement" and self.scope == "lamp":
            raise UsageError("prune.scope lamp is made for magnitudes, not for movement")

    @property
    def rules(self) -> PerLayer:
        """The sensitivity of each layer, or the sparsity where that is what is given."""
        if self.sparsity is not None:
            return PerLayer.parse(self.sparsity, parse_sparsity)
        return PerLayer.parse(self.sensitivity, parse_sensitivity)
