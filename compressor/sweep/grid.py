"""The grid of a sweep: ``KEY=V1,V2`` -> axes -> one recipe a point. Imports no torch."""

import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.recipe import Recipe

Settings = dict[str, object]
"""Dotted setting -> its value at a point, a number where it reads as one."""


@dataclass(frozen=True)
class Axis:
    """A setting by its dotted name, and the values that it takes in turn."""

    key: str
    values: tuple[object, ...]


def parse_axes(items: Sequence[str]) -> list[Axis]:
    """``["prune.sensitivity=0.5,1", "seed=0,1"]`` as axes, in that order.

    Values have commas between them. Values that hold commas themselves, such as rules for layers,
    are written as a TOML list: ``prune.sensitivity=["conv=0.5,fc=1", 0.7]``. Raises
    :class:`UsageError` for no axis, no value, a setting given twice, and what could be meant in
    both ways.
    """
    axes = [_axis(item) for item in items]
    if not axes:
        raise UsageError("nothing to sweep: give --set KEY=V1,V2, such as prune.sensitivity=0.5,1")
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(
                f"--set {key} is given twice: give all its values at once, {key}=V1,V2"
            )
    return axes


def points(recipe: Recipe, axes: Sequence[Axis]) -> list[tuple[Settings, Recipe]]:
    """Every combination of values, the last axis varying fastest, as a recipe.

    Raises :class:`UsageError` for a setting or a value that no recipe takes.
    """
    grid = [
        dict(zip((axis.key for axis in axes), values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]
    return [(settings, recipe.with_settings(settings)) for settings in grid]


def label(settings: Settings) -> str:
    """``prune.sensitivity=0.5 seed=1``: a point, for people."""
    return " ".join(f"{key}={value}" for key, value in settings.items())


def _axis(item: str) -> Axis:
    key, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not key:
        raise UsageError(f"--set {item}: give KEY=V1,V2, such as prune.sensitivity=0.5,1")
    values = _listed(key, text) if text.startswith("[") else _separated(key, text)
    if not values or "" in values:
        raise UsageError(f"--set {item}: a value is empty; give {key}=V1,V2")
    return Axis(key, tuple(values))


def _listed(key: str, text: str) -> list[object]:
    try:
        values = tomllib.loads(f"values = {text}")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--set {key}={text} is not a TOML list: {error}") from None
    found = values["values"]
    if not isinstance(found, list) or len(values) > 1:
        raise UsageError(f"--set {key}={text} is not a TOML list: give [V1, V2]")
    return found


def _separated(key: str, text: str) -> list[object]:
    values = [value.strip() for value in text.split(",")]
    if len(values) > 1 and any("=" in value for value in values):
        # One value of two rules, or two values of one rule?
        raise UsageError(
            f"--set {key}={text}: rules for layers hold commas, so write a list of values, "
            f"'{key}=[\"{text}\"]' for one"
        )
    return [_plain(value) for value in values]


def _plain(text: str) -> object:
    """A number as such, so that plots have an axis and 0.5 is 0.50; other text as it is."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
