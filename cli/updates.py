"""``compress diff`` and ``patch``: an update over the air, made and applied."""

from pathlib import Path

import click

from compressor.cli.shared import FILE, listening
from compressor.errors import OutputError


@click.command(short_help="Make the update that leads from one .dcz file to another.")
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="UPDATE.dczd")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
def diff(old: Path, new: Path, output: Path, force: bool, quiet: bool) -> None:
    """Write what changed from OLD.dcz to NEW.dcz, coded against OLD.dcz.

    It is smallest where NEW.dcz is OLD.dcz fine-tuned with the same weights pruned. "compress
    patch" makes NEW.dcz of it, byte for byte, and of no other base than OLD.dcz.
    """
    _check_free(output, force)

    from compressor import updates
    from compressor.files import write_atomically

    before, after = old.read_bytes(), new.read_bytes()
    update = updates.diff(before, after, names=(str(old), str(new)), progress=listening(quiet))
    write_atomically(output, update)
    if not quiet:
        part = 100 * len(update) / len(after)
        click.echo(f"{output}: {len(update):,} bytes, {part:.1f} % of the {len(after):,} of {new}")


@click.command(short_help="Apply an update to a .dcz file.")
@click.argument("old", type=FILE)
@click.argument("update", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="NEW.dcz")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
def patch(old: Path, update: Path, output: Path, force: bool, quiet: bool) -> None:
    """Write the file that UPDATE.dczd makes of OLD.dcz.

    It is, byte for byte, the one that "compress diff" was given. An update that was made for
    another file, or is damaged, is refused, and nothing is written.
    """
    _check_free(output, force)

    from compressor import updates
    from compressor.files import write_atomically

    names = str(old), str(update)
    found = updates.patch(
        old.read_bytes(), update.read_bytes(), names=names, progress=listening(quiet)
    )
    write_atomically(output, found)
    if not quiet:
        click.echo(f"{output}: {len(found):,} bytes")


def _check_free(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise OutputError(f"{output} exists: add --force to overwrite it")
