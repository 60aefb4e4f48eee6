"""``compress scan``: which layers can be compressed how far."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from compressor.cli.shared import (
    FILE,
    architecture,
    data_options,
    input_shape,
    listening,
    loading_options,
)
from compressor.errors import OutputError, UsageError
from compressor.recipe import Recipe

if TYPE_CHECKING:
    from compressor.training.data import Data

SETTINGS = {
    **{"data": "data.spec", "mean": "data.mean", "std": "data.std"},
    **{name: name for name in ("arch", "seed", "threads", "device")},
}


@click.command(short_help="Measure how sensitive each layer is.")
@click.argument("model", type=FILE)
@data_options
@loading_options
@click.option(
    "--kinds",
    metavar="LIST",
    default="weights,channels,bits",
    show_default=True,
    help="What to scan for.",
)
@click.option(
    "--layers", metavar="LIST", default="*", help="conv, fc, or patterns on names: layer1.*,fc."
)
@click.option(
    "--images", type=int, default=2000, show_default=True, help="Validation images to run."
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    default=1.0,
    show_default=True,
    help="The proposal loses at most so many percent of these images, before retraining.",
)
@click.option("-o", "--output", type=FILE, metavar="FOLDER", help="[default: NAME-scan]")
@click.option("--force", is_flag=True, help="Overwrite the output folder's files.")
@click.option("--json", "as_json", is_flag=True, help="Print scan.json on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no tables.")
def scan(model: Path, **options: Any) -> None:
    """Change every layer of MODEL alone and measure: pruned weights, removed channels, fewer bits.

    Writes scan.json, plots, and a recipe with settings for each layer, which "compress MODEL
    --recipe NAME-scan/recipe.toml" takes. Nothing is trained.
    """
    if options["data"] is None:
        raise UsageError("a scan needs labelled images: give --data, for example --data cifar10")
    if options["task"] is not None:
        raise UsageError(
            "a scan counts right answers, so it is of classifications: leave --task out"
        )
    options["arch"] = architecture(options["arch"], options["arch_args"])
    changes = {key: options[name] for name, key in SETTINGS.items() if options[name] is not None}
    if options["shape"] is not None:
        changes["input_shape"] = input_shape(options["shape"])
    recipe = Recipe().with_settings(changes)

    from compressor import api, loading, preflight
    from compressor.determinism import deterministic
    from compressor.network import Context
    from compressor.scan import proposals, to_json
    from compressor.scan import scan as run

    network = loading.load(
        model,
        arch=recipe.arch,
        input_shape=recipe.input_shape,
        trust_pickle=options["trust_pickle"],
    )
    folder = options["output"] or Path(f"{network.name}-scan")
    _check_folder(folder, options["force"])
    progress = listening(options["quiet"])
    recipe = api.resolve(recipe, network, progress)
    data = cast("Data", api.load_data(recipe, network, options["data_root"]))  # it has a spec
    preflight.check(network, recipe, data)
    with deterministic(recipe.threads, recipe.device) as device:
        network.module.to(device)
        context = Context(None, device, recipe.seed, progress)
        found = run(
            network,
            data,
            context,
            kinds=_list(options["kinds"]),
            layers=_list(options["layers"]),
            images=options["images"],
        )
        proposed = proposals(found, data, options["max_drop"], context)
    table = to_json(found, data, proposed, options["max_drop"])
    recipes = _recipes(proposed, recipe)
    _write(folder, table, recipes, options)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _recipes(proposed: dict[str, Any], recipe: Recipe) -> dict[str, str]:
    """File name -> recipe: the first proposal is recipe.toml, channels beside weights their own."""
    from dataclasses import replace

    names = {kind: "recipe.toml" if not at else f"{kind}.toml" for at, kind in enumerate(proposed)}
    return {
        names[kind]: replace(
            recipe, channels=p.recipe.channels, prune=p.recipe.prune, share=p.recipe.share
        ).to_toml()
        for kind, p in proposed.items()
    }


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: choose another folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise OutputError(
            f"{folder} exists and is not empty: add --force to overwrite, or choose another with -o"
        )


def _write(
    folder: Path, table: dict[str, Any], recipes: dict[str, str], options: dict[str, Any]
) -> None:
    from compressor.files import explained, write_atomically
    from compressor.reporting.console import tables
    from compressor.reporting.scan import draw, show

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("recipe.toml", "channels.toml"):  # of an earlier scan
        (folder / name).unlink(missing_ok=True)
    for name, text in recipes.items():
        write_atomically(folder / name, text.encode())
    note = ""
    try:
        with explained(folder):
            draw(table, folder)
    except UsageError as error:
        note = str(error)
    text = json.dumps(table, indent=1, allow_nan=False)
    write_atomically(folder / "scan.json", f"{text}\n".encode())
    if options["as_json"]:
        click.echo(text)
    if note and not options["quiet"]:
        click.echo(note, err=True)
    if options["as_json"] or options["quiet"]:
        return
    show(table, tables())
    if not recipes:
        click.echo("no settings within --max-drop were found: there is no recipe")
    for name in recipes:
        click.echo(f"compress MODEL --recipe {folder / name} takes these settings")
