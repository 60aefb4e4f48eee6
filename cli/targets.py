"""Targets on the command line: what they are, and which options they leave no room for."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from compressor.cli.shared import flag
from compressor.errors import UsageError
from compressor.recipe import Recipe
from compressor.settings import Targets, parse_size, parse_times

FOUND = ("prune.sensitivity", "prune.sparsity", "prune.scope", "share.bits", "share.centroids")
"""Settings that a search finds, or that would contradict what it finds."""


def targets_of(recipe: Recipe, options: Mapping[str, Any]) -> Targets | None:
    """What the run is to reach; ``--max-drop`` is calibration's own where the run calibrates."""
    size, times, drop = (options[n] for n in ("target_size", "target_ratio", "max_drop"))
    quantize = options["quantize"]
    sized = size is not None or times is not None
    if size is not None and times is not None:
        raise UsageError("--target-size and --target-ratio say one thing in two ways: give one")
    calibrated = quantize == "auto" or (quantize is None and recipe.calibrate is not None)
    if calibrated and sized:
        raise UsageError(
            f"--target-{'size' if times is None else 'ratio'} does not go with --quantize auto, "
            "which takes --max-drop alone: leave --quantize out, and widths are found"
        )
    if calibrated or (not sized and drop is None):
        return None
    if quantize is not None and not sized:
        raise UsageError(
            "--max-drop has no effect without --quantize auto where --quantize is given: leave "
            "--quantize out, and widths are found"
        )
    try:
        part = None if size is None else parse_size(size)
        return Targets(part if times is None else parse_times(times), drop)
    except UsageError as error:
        by_option = re.sub(r"^target (size|ratio|max_drop)", r"--target-\1", str(error))
        raise UsageError(by_option.replace("--target-max_drop", "--max-drop")) from None


def beginnings(recipe: Recipe) -> dict[str, Any]:
    """Values that a search puts others in place of, for stages that the recipe lacks."""
    begin: dict[str, Any] = {}
    if recipe.prune is None:
        begin["prune.sparsity"] = 0.5
    if recipe.share is None:
        begin["share.bits"] = 5
    return begin


def check_free(given: Iterable[str], options: Mapping[str, str]) -> None:
    """Refuse settings beside targets that find them; ``options`` names some (setting -> option)."""
    for key in FOUND:
        if key in given:
            name = flag(options[key]) if key in options else key
            raise UsageError(
                f"{name} is found by a search for --target-size, --target-ratio or --max-drop: "
                "give one or the other"
            )
