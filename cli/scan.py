"""``compress scan``: which layers can be compressed how far."""

from collections.abc import Collection
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
from compressor.errors import UsageError
from compressor.files import check_folder
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
    from compressor.scan import folder as outputs
    from compressor.scan import proposals, to_json
    from compressor.scan import scan as run

    network = loading.load(
        model,
        arch=recipe.arch,
        input_shape=recipe.input_shape,
        trust_pickle=options["trust_pickle"],
    )
    folder = options["output"] or Path(f"{network.name}-scan")
    check_folder(folder, force=options["force"])
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
    recipes = outputs.recipes(proposed, recipe)
    _show(folder, table, outputs.write(folder, table, recipes), recipes, options)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _show(
    folder: Path,
    table: dict[str, Any],
    text: str,
    recipes: Collection[str],
    options: dict[str, Any],
) -> None:
    if options["as_json"]:
        click.echo(text)
    if options["as_json"] or options["quiet"]:
        return
    from compressor.reporting.console import tables
    from compressor.reporting.scan import show

    show(table, tables())
    if not recipes:
        click.echo("no settings within --max-drop were found: there is no recipe")
    for name in recipes:
        click.echo(f"compress MODEL --recipe {folder / name} takes these settings")
