"""Checks of settings: each gives the checked value, or raises :class:`UsageError`."""

import math
from collections.abc import Mapping

from compressor.errors import UsageError
from compressor.per_layer import PerLayer

Rules = PerLayer | float | str | Mapping[str, float | str]
"""A setting per layer, in any of the ways in which one can be written (``per_layer``)."""


def number(
    name: str, value: object, low: float = -math.inf, high: float = math.inf, kind: str = "number"
) -> float:
    """``value``, also where written as text, as a finite number within the bounds."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not low <= found <= high or (kind == "whole number" and not found.is_integer()):
        raise UsageError(f"{name} is {value!r}: it must be a {kind}{_between(low, high)}")
    return found


def integer(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> int:
    """The same for whole numbers."""
    return int(number(name, value, low, high, "whole number"))


def _between(low: float, high: float) -> str:
    """Half a sentence, with whole bounds in full."""
    ends = [f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (low, high)]
    if high < math.inf:
        return f" between {ends[0]} and {ends[1]}"
    return f" of at least {ends[0]}" if low > -math.inf else ""


def choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Only what is ``allowed``."""
    if value not in allowed:
        known = ", ".join(map(str, allowed))
        raise UsageError(f"{name} is {value!r}: it must be one of {known}")


def settle(settings: object, **checked: object) -> None:
    """Checked values in place of those given: ``lr=1`` and ``lr=1.0`` are one recipe."""
    for name, value in checked.items():
        object.__setattr__(settings, name, value)


def part(name: str, value: object) -> float:
    """A part of the dense network's cost: between 0 and 1, both excluded."""
    kept = number(name, value, 0.0, 1.0)
    if kept in (0.0, 1.0):
        raise UsageError(f"{name} is {kept:g}: it is the part to keep, over 0 and under 1")
    return kept


def removed(name: str, value: object, things: str) -> float:
    """A fraction of ``things``, which go: between 0 and 1, both excluded."""
    fraction = number(name, value, 0.0, 1.0)
    if fraction in (0.0, 1.0):
        raise UsageError(f"{name} is {value!r}: it is the fraction of {things}, over 0 and under 1")
    return fraction
