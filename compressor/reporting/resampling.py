"""Intervals that hold on a shared machine: bootstrap over launches and rounds, not over calls.

Calls that follow one another are alike (the same caches, the same clock rate, the same neighbour on
the machine), so a bootstrap over single calls gives intervals that are far too narrow. What is
drawn here is what repeats: a *round*, in which every network was measured once, and a *launch*, for
which networks were loaded anew (``compress bench``: in new processes). A copy keeps its addresses,
which alone can make it a few per cent faster: Mytkowicz et al., ASPLOS 2009; Kalibera and Jones,
ISMM 2013.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
LEVEL = 0.95
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that holds it with probability ``LEVEL``."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Relative to the value: 0.03 is 3 %."""
        return (self.high - self.low) / self.value if self.value else math.inf

    @property
    def holds_one(self) -> bool:
        return self.low <= 1 <= self.high

    def row(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def median(launches: Sequence[Values], seed: int = 0) -> Interval:
    """Of the values of all rounds, above 0; each item is the rounds of one launch, in order.

    On the scale of logarithms: a call may take much longer than usual, but never much less.
    """
    logs = [np.log(each) for each in launches]
    low, high = bounds(logs, seed)
    middle = float(np.median(np.concatenate(logs)))
    return Interval(math.exp(middle), math.exp(low), math.exp(high))


def ratio(above: Sequence[Values], below: Sequence[Values], seed: int = 0) -> Interval:
    """The median over rounds of the ratio of two networks that were measured in the same rounds.

    What slows the machine down for a while slows both, and drops out of the ratio of a round.
    """
    return median([one / other for one, other in zip(above, below, strict=True)], seed)


def quotient(above: Sequence[Values], below: Sequence[Values], seed: int = 0) -> Interval:
    """The ratio of the medians of two networks that were measured in the same rounds.

    Where medians are what is shown, this is their ratio; both are drawn from the same rounds.
    """
    pair = [[np.log(each) for each in series] for series in (above, below)]
    drawn = _drawn(pair, seed)
    one, other = (float(np.median(np.concatenate(series))) for series in pair)
    reach = _reach(drawn[0] - drawn[1], pair)
    middle = one - other
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))


def bounds(launches: Sequence[Values], seed: int = 0) -> tuple[float, float]:
    """The ends of the interval on the median.

    1. Launches are drawn with replacement, and of each, blocks of rounds with replacement, as long
       as their autocorrelation asks for (moving blocks: Kuensch 1989, Carlstein 1986).
    2. The standard error is the deviation of the medians of ``DRAWS`` such draws, and corrected for
       the number of launches, as a bootstrap of few takes them to differ less than they do.
    3. Three launches span the truth in 75 of 100 cases only, so percentiles of the draws, which
       lie between the extremes, cannot do: the interval is Student's t, with one degree of freedom
       less than launches. Where launches hardly differ that is wider than it need be; degrees of
       freedom estimated from how much they do (Satterthwaite) held 1 in 93 of 100 trials only. Of
       a single launch, which only Ctrl-C leaves, blocks count in place of launches.
    """
    reach = _reach(_drawn([launches], seed)[0], [launches])
    middle = float(np.median(np.concatenate(launches)))
    return middle - reach, middle + reach


def _drawn(series: Sequence[Sequence[Values]], seed: int) -> list[Values]:
    """``DRAWS`` medians of each of several series, of the same launches and rounds in each draw."""
    draw = np.random.default_rng(seed)
    launches = series[0]
    count, longest, length = len(launches), max(map(len, launches)), _block(series)
    sizes = np.array([len(each) for each in launches])
    chosen = draw.integers(0, count, (DRAWS, count))
    starts = draw.random((DRAWS, count, -(-longest // length)))
    starts = (starts * sizes[chosen][..., None]).astype(np.int64)
    places = (starts[..., None] + np.arange(length)).reshape(DRAWS, count, -1)[..., :longest]
    places %= sizes[chosen][..., None]  # the end of a launch is followed by its beginning
    found = []
    for each in series:
        padded = np.stack([np.resize(launch, longest) for launch in each])
        drawn = padded[chosen[..., None], places].reshape(DRAWS, -1)
        found.append(np.median(drawn, axis=1))
    return found


def _reach(drawn: Values, series: Sequence[Sequence[Values]]) -> float:
    """Half of the width of the interval, from what was drawn of a figure."""
    launches = series[0]
    count = len(launches)
    error = float(drawn.std()) * (math.sqrt(count / (count - 1)) if count > 1 else 1.0)
    repeats = count if count > 1 else max(2, max(map(len, launches)) // _block(series))
    return error * student(1 - (1 - LEVEL) / 2, repeats - 1)


def _block(series: Sequence[Sequence[Values]]) -> int:
    return max(block_length(launch) for launches in series for launch in launches)


def block_length(values: Values) -> int:
    """Carlstein's best length for a series in which each value follows from the last (AR(1)).

    The correlation is that of ranks, which an outlier does not change much.
    """
    count = len(values)
    if count < 8 or values.min() == values.max():
        return 1
    ranks = values.argsort().argsort().astype(float)
    rho = float(np.corrcoef(ranks[:-1], ranks[1:])[0, 1])
    if rho <= 1.6 / math.sqrt(count):  # no more than chance makes
        return 1
    rho = min(rho, 0.95)
    best = (2 * rho / (1 - rho * rho)) ** (2 / 3) * count ** (1 / 3)
    return max(1, min(round(float(best)), count // 3))


def student(probability: float, freedom: float) -> float:
    """Quantile of Student's t by Cornish and Fisher's expansion; within 1 % from 3 degrees on."""
    z, n = NormalDist().inv_cdf(probability), max(1.0, freedom)
    return float(
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
