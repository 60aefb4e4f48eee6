"""``compress sweep``: one recipe over a grid of settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from compressor.cli.shared import FILE, by_flag, data_options, input_shape, listening
from compressor.errors import CompressorError, TargetMissed, UsageError
from compressor.recipe import Recipe

# option -> the setting that it changes
SETTINGS = {
    "data": "data.spec",
    "mean": "data.mean",
    "std": "data.std",
    "arch": "arch",
    "threads": "threads",
}


@click.command(short_help="Run a recipe over a grid of settings.")
@click.argument("recipe")
@click.option(
    "--model", type=FILE, required=True, help="The checkpoint that every point begins from."
)
@click.option(
    "--set",
    "grid",
    metavar="KEY=V1,V2",
    multiple=True,
    help="A setting of the recipe by its dotted name, and its values; more than one --set makes a "
    "grid. Values that hold commas are written as a list: "
    "'prune.sensitivity=[\"conv=0.5,fc=1\", 0.7]'.",
)
@data_options
@click.option("--arch", metavar="NAME", help='The network\'s class, as of "compress run".')
@click.option("--input-shape", "shape", metavar="1,C,H,W", help="One input, batch first.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Processes at a time; they share the cores [default: 1].",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run on this Dask cluster in place of processes here: HOST:8786.",
)
@click.option(
    "--threads",
    type=int,
    help="CPU threads of each point [default: cores / jobs; on a cluster 1].",
)
@click.option("-o", "--output", type=FILE, metavar="FOLDER", help="[default: NAME-sweep]")
@click.option("--force", is_flag=True, help="Start over in a folder of an earlier sweep.")
@click.option("--dry-run", is_flag=True, help="Check every point, list them, run nothing.")
@click.option("--trust-pickle", is_flag=True, help="Load a pickled module: this can run any code.")
@click.option("--json", "as_json", is_flag=True, help="Print sweep.json on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
def sweep(recipe: str, model: Path, **options: Any) -> None:
    """Run RECIPE (a file or a shipped one's name) on --model at every point of the grid.

    \b
    compress sweep recipe.toml --model net.pt --set prune.sensitivity=0.5,0.7 --set seed=0,1

    Each point is a run with a folder of its own. The same command goes on where a sweep was
    stopped, and tries points anew that failed. Ends with a table, sweep.json, sweep.md and plots.
    """
    if options["scheduler"] is not None and options["jobs"] is not None:
        raise UsageError(
            "--jobs is for processes here; with --scheduler the cluster's workers count"
        )
    from compressor.sweep.grid import parse_axes

    axes = parse_axes(options["grid"])
    base = _base(recipe, options)
    for axis in axes:
        taken = [
            name for name, key in SETTINGS.items() if key == axis.key and options[name] is not None
        ]
        if taken:
            raise UsageError(f"--set {axis.key} and --{taken[0]} are one setting: leave one out")

    from compressor import api
    from compressor.sweep import cluster, plan
    from compressor.sweep.execution import Sweep
    from compressor.sweep.folder import SweepFolder

    progress = listening(options["quiet"])
    network = api.network_of(model, base, trust_pickle=options["trust_pickle"])
    path = options["output"] or Path(f"{network.name}-sweep")
    folder = SweepFolder(path, plan.identity(network, base))
    known = folder.earlier(force=options["force"]).get("settled", {})
    there = options["scheduler"] is not None
    jobs = options["jobs"] or 1
    settled = plan.Settled(known, plan.default_threads(None if there else jobs), progress)
    points = plan.checked(
        network,
        base,
        axes,
        folder,
        settled,
        plan.loader(network, options["data_root"]),
        device_here=not there,
    )
    job = Sweep(
        model,
        axes,
        points,
        folder,
        settled,
        data_root=options["data_root"],
        trust_pickle=options["trust_pickle"],
        progress=progress,
    )
    if options["dry_run"]:
        _show(job.content(), path, [], options)
        return
    client = cluster.connect(options["scheduler"]) if there else None
    try:
        content = job.execute(jobs=jobs, client=client, force=options["force"])
    except KeyboardInterrupt:
        left = len(job.waiting())
        raise KeyboardInterrupt(
            f"interrupted: {len(points) - left} of {len(points)} points are finished and kept; the "
            "same command, without --force, goes on with the others"
        ) from None
    finally:
        if client is not None:
            client.close()
    _finish(content, path, options)


def _base(source: str, options: dict[str, Any]) -> Recipe:
    """The recipe that all points begin from."""
    recipe = Recipe.read(source)
    changes = {key: options[name] for name, key in SETTINGS.items() if options[name] is not None}
    try:
        recipe = recipe.with_settings(changes)
    except UsageError as error:
        raise UsageError(by_flag(str(error), SETTINGS, options)) from None
    shape = input_shape(options["shape"])
    return recipe if shape is None else replace(recipe, input_shape=shape)


def _finish(content: dict[str, Any], path: Path, options: dict[str, Any]) -> None:
    """Table and plots; then the exit code that the points deserve."""
    from compressor.files import write_atomically
    from compressor.reporting.sweeps import draw, markdown

    plots = draw(content, path)
    write_atomically(path / "sweep.md", markdown(content, plots).encode())
    _show(content, path, plots, options)
    points = content["points"]
    failed = [row for row in points if row["state"] != "finished"]
    if failed:
        raise CompressorError(
            f"{len(failed)} of {len(points)} points failed, see {path / 'sweep.md'}; the others "
            "are kept, and the same command tries these anew"
        )
    missed = [row for row in points if row["missed"]]
    if missed:
        raise TargetMissed(f"{len(missed)} of {len(points)} points missed a target")


def _show(content: dict[str, Any], path: Path, plots: list[str], options: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps(content, indent=1))
    if options["as_json"] or options["quiet"]:
        return
    from compressor.reporting.console import tables
    from compressor.reporting.sweeps import failures, sweep_table
    from compressor.reporting.tables import titled

    console = tables()
    console.print(titled(f"{len(content['points'])} points of {path}", sweep_table(content)))
    for line in failures(content):
        console.print(line, markup=False, soft_wrap=True)
    for name in plots:
        console.print(f"drawn: {path / name}", markup=False, soft_wrap=True)
