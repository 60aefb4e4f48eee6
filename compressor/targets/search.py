"""The search: layers' settings for a number of bits, which trials find, the last with training.

Layers are ranked by a model of their sensitivity (``models.py``), which gives the best settings at
any number of bits (``scan/allocation.py``). How many bits to ask it for is found by trials:

1. Without training, which is quick: the bits whose artifact is of the size asked for, by the
   secant within a bracket; or the fewest at which accuracy does not fall too far, by bisection.
2. Where the recipe trains, with all its training, at most `TRAININGS` times. Each tells the model
   what is left, after training, of the cost of pruning and of sharing, so that the next may prune
   more and share less; the size is corrected by what training made of it, and the drop that
   training mends is spent on fewer bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from compressor.errors import StageError, UsageError
from compressor.network import Context, Network, Row
from compressor.recipe import Recipe
from compressor.scan.allocation import HIGHEST, LOWEST, allocate, allocate_within
from compressor.settings import Targets
from compressor.targets.models import Models, mended, of_weights, weighted
from compressor.targets.trials import MOST_VALIDATION, Outcome, Trials, parts
from compressor.targets.verdict import Found, bytes_of, within

QUICK, TRAININGS = 10, 3
"""Trials without training, before each with training too where a size is asked for, and with it."""
CLOSE = 0.97
"""Of the bytes allowed, a part that is near enough; with training, whose trials are dear, less."""
CLOSE_TRAINED = 0.9
MARGIN = 0.995
"""Of the bytes allowed, what is aimed at."""
MARGIN_TRAINED = 0.98
"""The same before a training: indices of trained weights take more."""
MENDED = 0.1
"""What retraining is taken to leave of the cost of pruning, until it has been measured."""
STANDS = 2.0
"""A factor by which that moves so little that another training would find the same."""


def search(
    network: Network, recipe: Recipe, targets: Targets, fp32_bytes: int, context: Context
) -> Found:
    """``recipe`` with ``prune.sparsity`` and ``share.bits`` of each layer as ``targets`` ask.

    A drop alone gives the smallest artifact found within it; a size the best accuracy that the
    model finds at that size. Where a size cannot be met, the smallest artifact, within the drop
    where there is one; where a drop cannot, the settings that change least. The network stays as it
    was; ``recipe`` must be checked (``preflight``) and torch deterministic. Raises
    :class:`UsageError` for a recipe that is calibrated, and for a drop without validation images.
    """
    data = context.data
    images = 0 if data is None else min(MOST_VALIDATION, len(data.validation))
    if recipe.calibrate is not None:
        raise UsageError(
            "targets are met by prune and share: leave calibrate out (--quantize auto), which "
            "takes --max-drop alone"
        )
    if targets.max_drop is not None and not images:
        raise UsageError(
            "--max-drop needs validation images: give --data, or only a size (--target-size)"
        )
    context.progress.note("ranking layers ...")
    trials = Trials(network, recipe, context)
    if trials.judge is not None:
        models, by = trials.judge.models(), "loss on validation images"
    else:
        models, by = of_weights(trials.network, context.seed), "squared error of the weights"
    if not models:
        raise StageError(f"{network.name} has no layer to find settings for")
    finder = _Search(trials, models, targets, fp32_bytes)
    best = finder.best()
    return Found(targets, best.recipe, trials.accuracy, images, by, finder.tried)


@dataclass
class _Search:
    trials: Trials
    scanned: Models
    targets: Targets
    fp32_bytes: int
    tried: list[Row] = field(default_factory=list)
    outcomes: dict[tuple[object, ...], Outcome | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models, self.factor = self.scanned, 1.0
        self.guess = MENDED if self.trials.retrains else 1.0
        # Between them is every number of bits that the model can be asked for.
        self.fewest, self.most = (allocate(self.models, p)[1] for p in (HIGHEST, LOWEST))

    def best(self) -> Outcome:
        """The outcome to run, met or not. Raises :class:`StageError` where nothing is possible."""
        found = None
        if self.targets.size is not None:
            found = self._of_size(bytes_of(self.targets.size, self.fp32_bytes))
        if found is None and self.targets.max_drop is not None:
            found = self._within(self.targets.max_drop)
        if found is None:  # the size is out of reach
            found = self._try(self.fewest, train=self.trials.trains)
        if found is None:
            every = [each for each in self.outcomes.values() if each is not None]
            found = min(every, key=lambda each: each.bytes, default=None)
        if found is None:
            raise StageError("no settings that were tried can be had: see the notes above")
        return found

    def _of_size(self, wanted: int) -> Outcome | None:
        """The most accurate within ``wanted`` bytes; None where there is none.

        With training or without: a short one may do more harm than good.
        """
        _, found = self._bits_of(wanted)
        if found is None or not self.trials.trains:
            return found
        fitting, aim = [found], MARGIN_TRAINED * wanted
        self._weigh(self.guess)
        for _ in range(TRAININGS):
            bits, plain = self._bits_of(int(aim))
            outcome = None if plain is None else self._try(bits, train=True)
            if plain is None or outcome is None:
                break
            near = CLOSE_TRAINED * wanted <= outcome.bytes <= wanted
            if outcome.bytes <= wanted:
                fitting.append(outcome)
            if self._stands(outcome) and near:
                break
            aim = MARGIN * wanted * plain.bytes / outcome.bytes
        return max(fitting, key=lambda o: (self._met(o), o.accuracy or 0.0, o.trained, o.bytes))

    def _weigh(self, factor: float) -> None:
        """From now on pruning costs ``factor`` times what it does without retraining."""
        self.factor, self.models = factor, weighted(self.scanned, factor)

    def _stands(self, trained: Outcome) -> bool:
        """Whether a training has confirmed the factor; else the next is half-way, in logarithms.

        What is foreseen at a higher factor prunes less and shares more, of which relatively more is
        left: the factor measured falls as that in use rises, so that they meet in between. No
        retraining is taken to leave more of pruning than of sharing.
        """
        found = None
        if trained.harm is not None:
            found = mended(self.scanned, trained.settings, trained.harm)
        if found is None:
            return True
        before = self.factor
        self._weigh(math.sqrt(before * (min(found, 1.0) if self.trials.retrains else found)))
        return 1 / STANDS <= self.factor / before <= STANDS

    def _bits_of(self, wanted: int) -> tuple[float, Outcome | None]:
        """Without training: bits to ask for, and the outcome, None where none is so small."""
        low, high = self.fewest, self.most
        bits, best, at = self._bounded(8 * MARGIN * wanted), None, low
        for _ in range(QUICK):
            outcome = self._try(bits, train=False)
            if outcome is None:
                low = bits  # fewer are not possible either
            elif outcome.bytes > wanted:
                high = bits
            else:
                low, best, at = bits, outcome, bits
            near = outcome is not None and CLOSE * wanted <= outcome.bytes <= wanted
            if near or bits == low == self.most or bits == high == self.fewest:
                break
            secant = 0.0 if outcome is None else bits * MARGIN * wanted / outcome.bytes
            inside = low < secant < high or (secant <= low == self.fewest and best is None)
            bits = self._bounded(secant) if inside else math.sqrt(low * high)
            if high < 1.001 * low:
                break
        return at, best

    def _within(self, max_drop: float) -> Outcome | None:
        """The smallest whose accuracy falls by at most ``max_drop`` points."""

        def kept(outcome: Outcome | None) -> bool:
            return outcome is not None and within(self._drop(outcome), max_drop)

        bits, found = self._bisect(self.fewest, self.most, QUICK, kept, train=False)
        if self.trials.trains:
            # Half of the bits is a guess of what training mends, halved again as long as it does.
            self._weigh(self.guess)
            _, trained = self._bisect(self.fewest, bits, TRAININGS, kept, train=True)
            found = trained or found
        return found or self._try(self.most, train=False)

    def _bisect(
        self,
        low: float,
        high: float,
        count: int,
        kept: Callable[[Outcome | None], bool],
        *,
        train: bool,
    ) -> tuple[float, Outcome | None]:
        """The smallest artifact that is ``kept``, and its bits: ``high`` where none is."""
        best = None
        for _ in range(count):
            if high < 1.03 * low:
                break
            bits = max(math.sqrt(low * high), high / 2) if train else math.sqrt(low * high)
            outcome = self._try(bits, train=train)
            if train and outcome is not None:
                self._stands(outcome)
            if kept(outcome):
                high, best = bits, outcome
            else:
                low = bits
        return high, best

    def _try(self, bits: float, *, train: bool) -> Outcome | None:
        """What the model proposes for ``bits``; what was tried before is not tried again."""
        settings = allocate_within(self.models, bits)
        key = (train, *settings.items())
        if key in self.outcomes:
            return self.outcomes[key]
        outcome = self.outcomes[key] = self.trials.trial(settings, train=train)
        sparsity, width = parts(self.trials.network, settings)
        row: Row = {"trained": train, "sparsity": sparsity, "bits": width}
        row |= {"layers": {n: [s.sparsity, s.bits] for n, s in settings.items()}}
        row |= {"bytes": None, "accuracy": None, "drop": None, "met": False}
        if outcome is not None:
            drop = None if outcome.accuracy is None else self._drop(outcome)
            row |= {"bytes": outcome.bytes, "accuracy": outcome.accuracy, "drop": drop}
            row["met"] = self._met(outcome)
            fall = "" if drop is None else f", {drop:.2f} points lost"
            how = "trained" if train else "untrained"
            self.trials.context.progress.note(f"tried, {how}: {outcome.bytes:,} bytes{fall}")
        self.tried.append(row)
        return outcome

    def _met(self, outcome: Outcome) -> bool:
        size, max_drop = self.targets.size, self.targets.max_drop
        small = size is None or outcome.bytes <= bytes_of(size, self.fp32_bytes)
        return small and (max_drop is None or within(self._drop(outcome), max_drop))

    def _drop(self, outcome: Outcome) -> float:
        if self.trials.accuracy is None or outcome.accuracy is None:
            raise RuntimeError("a drop is searched for, and no image tells it")
        return 100 * (self.trials.accuracy - outcome.accuracy)

    def _bounded(self, bits: float) -> float:
        return min(max(bits, self.fewest), self.most)
