"""Every point of a sweep, checked before any runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from compressor import __version__, api
from compressor.channels import widths
from compressor.errors import CompressorError, UsageError
from compressor.network import Network
from compressor.pipeline import fingerprint
from compressor.preflight import check
from compressor.progress import Progress
from compressor.recipe import Recipe
from compressor.sweep.folder import SweepFolder
from compressor.sweep.grid import Axis, Settings, label, points
from compressor.training.data import Data

Json = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One run: its settings of the grid, its resolved recipe, what identifies it, its folder."""

    settings: Settings
    recipe: Recipe
    fingerprint: Json
    place: Path


def identity(network: Network, recipe: Recipe) -> Json:
    """What must agree for one sweep to continue another. Its grid may grow or change."""
    return {"model": network.source, "recipe": recipe.digest(), "tool": __version__}


class Settled:
    """What the machine decides, decided once when a sweep begins: threads, and widths of channels.

    ``known`` is what an earlier start of the sweep has settled; what is new is added to it.
    """

    def __init__(self, known: Json, threads: int, progress: Progress) -> None:
        self.known = {"threads": threads, "round": {}, **known}
        self.progress = progress

    def resolve(self, recipe: Recipe, network: Network) -> Recipe:
        """The recipe with nothing left open, so that every process and machine runs the same."""
        recipe = replace(recipe, threads=recipe.threads or self.known["threads"])
        if recipe.channels is not None and not isinstance(recipe.channels.round, int):
            name, steps = recipe.channels.round, self.known["round"]
            if name not in steps:
                steps[name] = widths.step_named(name, self.progress)
            recipe = recipe.with_settings({"channels.round": steps[name]})
        return api.resolve(recipe, network)


def checked(
    network: Network,
    recipe: Recipe,
    axes: Sequence[Axis],
    folder: SweepFolder,
    settled: Settled,
    load: Callable[[Recipe], Data | None],
    *,
    device_here: bool,
) -> list[Point]:
    """The points of a grid. Raises :class:`CompressorError` for the first that could not begin.

    What one run checks before it touches a file (``preflight``) is checked of all; whether the
    device is there only with ``device_here``. ``load`` gives the data of a recipe.
    """
    found: list[Point] = []
    for settings, each in points(recipe, axes):
        resolved = settled.resolve(each, network)
        try:
            data = load(resolved)
            check(network, resolved if device_here else replace(resolved, device="cpu"), data)
        except CompressorError as error:
            raise type(error)(f"{label(settings)}: {error}") from None
        mark = fingerprint(network, resolved, data)
        found.append(Point(settings, resolved, mark, folder.place(mark)))
    _check_different(found)
    return found


def _check_different(found: Sequence[Point]) -> None:
    first: dict[Path, Point] = {}
    for point in found:
        other = first.setdefault(point.place, point)
        if other is not point:
            raise UsageError(
                f"{label(other.settings)} and {label(point.settings)} are one and the same: "
                "leave one out"
            )


def default_threads(jobs: int | None) -> int:
    """The cores shared among processes here; one a point where others say how many there are."""
    return 1 if jobs is None else max(1, torch.get_num_threads() // jobs)


def loader(network: Network, root: Path | None) -> Callable[[Recipe], Data | None]:
    """Loads the data of recipes, anew only where they differ in data or seed."""
    loaded: dict[object, Data | None] = {}

    def load(recipe: Recipe) -> Data | None:
        key = (recipe.data, recipe.seed)
        if key not in loaded:
            loaded.clear()  # one at a time in memory
            loaded[key] = api.load_data(recipe, network, root)
        return loaded[key]

    return load
