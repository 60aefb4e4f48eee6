"""The folder of a scan: what it may hold before, and what is written into it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compressor.files import explained, write_atomically
from compressor.network import Row
from compressor.recipe import Recipe
from compressor.reporting.scan import draw
from compressor.scan.proposal import Proposal

RECIPES = ("recipe.toml", "channels.toml")


def recipes(proposed: Mapping[str, Proposal], recipe: Recipe) -> dict[str, Recipe]:
    """Recipes by their files' names: the first proposal is recipe.toml, one of channels that
    stands beside one of weights is channels.toml. ``recipe`` has what proposals say nothing of.
    """
    return {
        RECIPES[at]: replace(
            recipe, channels=each.recipe.channels, prune=each.recipe.prune, share=each.recipe.share
        )
        for at, each in enumerate(proposed.values())
    }


def write(folder: Path, table: Row, found: Mapping[str, Recipe]) -> str:
    """Write recipes, plots and scan.json, in this order; returns what scan.json says.

    Recipes of an earlier scan go. Raises :class:`OutputError` where the folder cannot be written.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in RECIPES:
            (folder / name).unlink(missing_ok=True)
    text = json.dumps(table, indent=1, allow_nan=False)
    files = {name: each.to_toml().encode() for name, each in found.items()}
    files |= {**draw(table), "scan.json": f"{text}\n".encode()}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return text
