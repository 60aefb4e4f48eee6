"""``compress inspect``, ``decompress`` and ``verify``: what can be done with a ``.dcz`` file."""

import json
from pathlib import Path
from typing import Any

import click

from compressor.cli.shared import FILE
from compressor.errors import UsageError
from compressor.files import check_absent

FORMS = (".pt", ".safetensors", ".onnx")


@click.command(short_help="Show what a .dcz file holds.")
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def inspect(file: Path, as_json: bool) -> None:
    """Show every tensor of FILE.dcz: shape, sparsity, bits, and bytes by part."""
    from compressor import artifact
    from compressor.reporting.inspection import contents, contents_table

    rows = contents(artifact.read(file))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from compressor.reporting.console import tables
    from compressor.reporting.tables import titled

    tables().print(titled(file.name, contents_table(rows)))


@click.command(short_help="Turn a .dcz file into .pt, .safetensors or .onnx.")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE.{pt,safetensors,onnx}")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def decompress(file: Path, output: Path, force: bool) -> None:
    """Decode FILE.dcz, bit for bit the network that was evaluated.

    An .onnx file is byte for byte the one that the run itself wrote. Over 2 GB it has its weights
    beside it, in FILE.onnx.data.
    """
    if output.suffix not in FORMS:
        raise UsageError(f"-o {output}: the name must end in {', '.join(FORMS)}")
    check_absent(output, force=force)

    from compressor import artifact, unpacking

    size = unpacking.unpack(artifact.read(file), output)
    click.echo(f"{output}: {size:,} bytes, from {file.stat().st_size:,}")


@click.command(short_help="Check a .dcz file, alone or against an ONNX file.")
@click.argument("file", type=FILE)
@click.option("--against", type=FILE, metavar="FILE.onnx", help="Must be what FILE.dcz decodes to.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def verify(file: Path, against: Path | None, as_json: bool) -> None:
    """Decode all of FILE.dcz, checking every checksum; run its graph in ONNX Runtime.

    With --against, also run that file on the same inputs and compare.
    """
    from compressor import artifact, unpacking

    found: dict[str, Any] = unpacking.verify(artifact.read(file), against)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(
        f"{file}: {found['tensors']} tensors, {found['weights']:,} weights, every checksum right"
    )
    if found["graph"]:
        click.echo("its graph loads and runs in ONNX Runtime; all outputs are finite")
    if against is not None:
        same = "the same bytes" if found["identical"] else "other bytes"
        click.echo(
            f"{against}: {same}; largest difference of outputs {found['difference_absolute']:.1e} "
            f"({found['difference_relative']:.1e} relative)"
        )
