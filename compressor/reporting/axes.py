"""Axes of charts: where figures lie on them, where ticks stand, and how they are written."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Figures low..high onto the pixels start..end, evenly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        part = (at - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round figures within the scale: 1, 2 or 5 times a power of ten."""
        if self.log:
            return self._log_ticks(count)
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        size = 10 ** math.floor(math.log10(span / count))
        step = next((m * size for m in (1, 2, 5) if span / (m * size) <= count), 10 * size)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**p for p in powers for d in digits]
            found = [tick for tick in found if self.low <= tick <= self.high * (1 + 1e-9)]
            if len(found) <= count + 1:
                break
        if len(found) >= 2:
            return found[:: math.ceil(len(found) / (count + 1))]
        even = Scale(self.low, self.high, self.start, self.end)
        return even.ticks(count)


def short(value: float) -> str:
    """A figure for an axis: 0.05, 12, 3.4k, 1.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A fraction for an axis."""
    return f"{100 * value:.4g} %"


@dataclass
class Axis:
    """What an axis shows: its label, the figures it ranges over, how they are written.

    ``ticks`` are where figures stand, in place of round ones.
    """

    label: str
    low: float
    high: float
    log: bool = False
    text: Callable[[float], str] = short
    ticks: Sequence[float] | None = None
