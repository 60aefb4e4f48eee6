"""``compress export``: files for runtimes out of an artifact."""

import json
from pathlib import Path
from typing import Any

import click

from compressor.cli.shared import FILE, by_flag, data_options, listening
from compressor.errors import TargetMissed, UsageError
from compressor.recipe import Recipe

# option -> the setting of a recipe that it is
SETTINGS = {
    "emit": "export.emit",
    "data": "data.spec",
    "mean": "data.mean",
    "std": "data.std",
    "seed": "seed",
    "threads": "threads",
}


@click.command(short_help="Make .onnx, .ort, INT8 and fp16 files of a .dcz file.")
@click.argument("file", type=FILE)
@click.option(
    "--emit",
    metavar="LIST",
    default="onnx",
    show_default=True,
    help="Which: onnx, ort (ONNX Runtime's own format, for mobile and web builds), int8 (QDQ, "
    "calibrated on the --data), fp16; onnx,ort,int8,fp16.",
)
@data_options
@click.option("--seed", type=int, help="Seed of what is drawn of the data.")
@click.option("--threads", type=int, help="CPU threads [default: 1].")
@click.option("-o", "--output", type=FILE, default=Path(), metavar="FOLDER", help="[default: .]")
@click.option("--force", is_flag=True, help="Overwrite files.")
@click.option("--json", "as_json", is_flag=True, help="Print what is known of each file as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
def export(file: Path, **options: Any) -> None:
    """Write files that runtimes read, out of FILE.dcz, named like it.

    Each is run in ONNX Runtime and compared with the ONNX file; with --data its accuracy is
    measured. One whose outputs are too far away is written, and the exit code is 3.
    """
    given = {key: options[name] for name, key in SETTINGS.items() if options[name] is not None}
    try:
        recipe = Recipe().with_settings(given)
    except UsageError as error:
        raise UsageError(by_flag(str(error), SETTINGS, options)) from None

    from compressor import artifact, emitting
    from compressor.export import optional
    from compressor.network import Context

    decoded, data = artifact.read(file), None
    if recipe.data is not None:
        data = emitting.load_data(decoded, recipe.data, options["data_root"], recipe.seed)
    rows = emitting.emit(
        decoded,
        options["output"] / file.stem,
        recipe.export,
        Context(data, seed=recipe.seed, progress=listening(options["quiet"])),
        threads=recipe.threads or 1,
        force=options["force"],
    )
    if options["as_json"]:
        click.echo(json.dumps(rows))
    elif not options["quiet"]:
        from compressor.reporting.console import tables
        from compressor.reporting.tables import emitted_table

        tables().print(emitted_table(rows, file.stat().st_size))
    if lines := optional.missed(rows):
        raise TargetMissed("; ".join(lines) + " (everything else is there)")
