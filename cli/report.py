"""``compress report``: a run's pages made again, or runs side by side."""

from pathlib import Path

import click

from compressor.cli.shared import FILE
from compressor.errors import OutputError, UsageError


@click.command(short_help="Make a run's report again, or set runs side by side.")
@click.argument("runs", type=FILE, nargs=-1, metavar="RUN...")
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FOLDER",
    help="Where to write [default: the run's own folder; of several runs, this one].",
)
@click.option("--force", is_flag=True, help="Overwrite a comparison that is there already.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of report.json, and exit.")
def report(runs: tuple[Path, ...], output: Path | None, force: bool, schema: bool) -> None:
    """Make report.html and report.md from the report.json of one RUN, a folder or the file itself.

    Of several runs write comparison.html and comparison.md: one table, and accuracy against bytes
    and against latency.
    """
    from compressor.reporting import schema as schemas

    if schema:
        click.echo(schemas.text(), nl=False)
        return
    if not runs:
        raise UsageError("give the folder of a run, or of several to compare them")

    from compressor.files import explained, write_atomically
    from compressor.reporting import render

    reports = [(path, schemas.read(path)) for path in runs]
    if len(reports) == 1:
        ((path, only),) = reports
        folder = output or (path if path.is_dir() else path.parent)
        made = render.again(only, path)
    else:
        folder, made = output or Path(), render.compared(reports)
        for name in made:
            if (folder / name).exists() and not force:
                raise OutputError(f"{folder / name} exists: add --force to overwrite it")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        write_atomically(folder / name, content)
        click.echo(f"{folder / name}: {len(content):,} bytes")
