"""The ratio for a goal: Torch-Pruning is told how many channels go, not how much work is left."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
STEPS = 128
"""Ratios that there are: a channel is 1/64 of a layer at least."""


def least(cut: Callable[[float], tuple[T, int]], wanted: float) -> tuple[T, int]:
    """What ``cut`` gives, and its multiply-adds, at the least ratio that leaves ``wanted`` of them.

    By bisection over multiples of 1/128. Where widths are rounded, multiply-adds do not fall
    steadily, and what is found leaves so few, but may not be the least ratio that does. Raises
    RuntimeError where none of the ratios tried does.
    """
    low, high = 0, STEPS
    best: tuple[T, int] | None = None
    while high - low > 1:
        middle = (low + high) // 2
        made, macs = cut(middle / STEPS)
        if macs <= wanted:
            high, best = middle, (made, macs)
        else:
            low = middle
    if best is None:
        raise RuntimeError("no ratio leaves so few multiply-adds")
    return best
