"""Settings of the removal of channels."""

import typing
from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.per_layer import PerLayer
from compressor.settings.checks import Rules, choice, integer, part, removed, settle
from compressor.settings.training import Training

Round = typing.Literal["auto", "ort-avx512", "wasm", 1, 4, 8, 16, 32]
Scope = typing.Literal["uniform", "global"]
Criterion = typing.Literal["l2", "l1", "gamma", "next", "taylor", "obs", "random"]

ROUNDS = ("auto", "ort-avx512", "wasm", 1, 4, 8, 16, 32)
SCOPES = ("uniform", "global")
CRITERIA = ("l2", "l1", "gamma", "next", "taylor", "obs", "random")


def parse_ratio(value: object) -> float:
    """A fraction of channels to remove: between 0 and 1, both excluded."""
    return removed("channels.ratio", value, "channels to remove")


def _round(value: object) -> int | str:
    """A step of widths, or the name of what tells it."""
    step = int(value) if isinstance(value, str) and value.isdigit() else value
    choice("channels.round", step, ROUNDS)
    return typing.cast(int | str, step)


@dataclass(frozen=True)
class Channels:
    """Before the paper's stages: whole channels removed, so that a dense runtime is faster.

    ``ratio`` is the fraction of the channels to remove: of every layer, or where ``scope`` is
    "global" of all together, wherever they are worth least by ``criterion``. ``target_macs`` has
    the ratio found instead: the least that leaves at most so large a part of the multiply-adds;
    ``target_latency`` that at which ONNX Runtime takes so large a part of the time here.
    ``round`` makes widths multiples of it: "auto" is what this machine's convolutions like best
    (measured, and written into the resolved recipe), the names are profiles of other machines.
    ``keep`` is the fewest channels that a layer keeps, and ``freeze_residual`` leaves what sums of
    activations join. On ``reconstruct`` training images the layers that read fewer channels are
    fitted to what they computed before. ``rounds`` above 1 remove in as many equal factors, each
    followed by re-estimation of batch-norm statistics on ``recalibrate`` training images and by
    ``retrain``.
    """

    ratio: Rules | None = None
    scope: Scope = "uniform"
    target_macs: float | None = None
    target_latency: float | None = None
    criterion: Criterion = "l2"
    round: Round = "auto"
    keep: int = 3
    freeze_residual: bool = False
    rounds: int = 1
    reconstruct: int = 1000
    recalibrate: int = 2000
    retrain: Training = Training()

    def __post_init__(self) -> None:
        if sum(each is not None for each in self._goals) != 1:
            raise UsageError(
                "channels: give one of ratio (--channels 0.3), target_macs (--target-macs 0.5) and "
                "target_latency (--target-latency 0.5)"
            )
        choice("channels.criterion", self.criterion, CRITERIA)
        choice("channels.scope", self.scope, SCOPES)
        if self.ratio is not None:
            settle(self, ratio=self.rules)
            if self.scope == "global" and list(self.rules.table()) != ["*"]:
                raise UsageError("channels.scope global takes one ratio for all layers")
        for name in ("target_macs", "target_latency"):
            if getattr(self, name) is not None:
                settle(self, **{name: part(f"channels.{name}", getattr(self, name))})
        settle(
            self,
            round=_round(self.round),
            keep=integer("channels.keep", self.keep, 1, 1_000_000),
            rounds=integer("channels.rounds", self.rounds, 1, 100),
            reconstruct=integer("channels.reconstruct", self.reconstruct, 0, 10_000_000),
            recalibrate=integer("channels.recalibrate", self.recalibrate, 0, 10_000_000),
        )

    @property
    def _goals(self) -> tuple[object, ...]:
        return (self.ratio, self.target_macs, self.target_latency)

    @property
    def rules(self) -> PerLayer:
        """The ratio of each layer."""
        return PerLayer.parse(self.ratio if self.ratio is not None else {}, parse_ratio)
