"""``compress bench``: files beside each other, in size, speed and accuracy."""

import json
from pathlib import Path
from typing import Any

import click

from compressor.cli.shared import FILE, data_options, listening
from compressor.errors import CompressorError, UsageError
from compressor.files import check_writable, write_atomically


@click.command(short_help="Measure files beside each other: MACs, bytes, latency.")
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--arch", metavar="NAME", help='The class of checkpoints, as of "compress run".')
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--runtime",
    metavar="LIST",
    help="torch, compile, ort; on cuda also graphs, and torch-fp16, compile-fp16, graphs-fp16 "
    "[default: ort, and torch where all files are checkpoints].",
)
@click.option("--batch", default="1", show_default=True, metavar="LIST", help="1,32")
@click.option("--threads", default="1", show_default=True, metavar="LIST", help="CPU threads: 1,2")
@click.option(
    "--input-shape",
    "shapes",
    metavar="[NAME:]1,C,H,W",
    multiple=True,
    help="One input, batch first; for each of several, with its name.",
)
@click.option("--per-layer", is_flag=True, help="MACs, bytes and time of every layer.")
@click.option(
    "--sparse", is_flag=True, help="Linear layers as CSR, beside dense; where CSR begins to pay."
)
@data_options
@click.option(
    "--width",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="Measure until all 95 % intervals are narrower.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Go on no longer for that, for each batch and number of threads.",
)
@click.option("--seed", type=int, default=0, show_default="0", help="Of the order of turns.")
@click.option("--trust-pickle", is_flag=True, help="Load a pickled module: this can run any code.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write the result here as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
def bench(files: tuple[Path, ...], **options: Any) -> None:
    """Measure FILES (.pt, .safetensors, .onnx, .dcz, .ort), and compare all with the first.

    Networks take turns in processes of their own, in random order. A ratio stands with the interval
    that holds it with 95 %; where that holds 1, no difference was shown. A file that fails, or that
    crashes its runtime, is reported, and the others are measured.
    """
    from compressor.benchmarks.harness.bench import Plan
    from compressor.benchmarks.harness.bench import bench as measured
    from compressor.benchmarks.harness.rounds import Limits
    from compressor.benchmarks.harness.subjects import subjects

    shapes = tuple(named_shape(text) for text in options["shapes"])
    found = subjects(files, options["arch"], shapes, options["trust_pickle"])
    plan = Plan(
        runtimes=tuple(filter(None, (options["runtime"] or "").split(","))),
        device=options["device"],
        batches=_numbers("--batch", options["batch"]),
        threads=_numbers("--threads", options["threads"]),
        limits=Limits(width=options["width"] / 100, seconds=options["seconds"]),
        seed=options["seed"],
        data=_data(options),
        per_layer=options["per_layer"],
        sparse=options["sparse"],
    )
    if options["output"] is not None:
        check_writable(options["output"])
    result = measured(found, plan, listening(options["quiet"]))
    _finish(result, options)


def _finish(result: dict[str, Any], options: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1)
    if options["output"] is not None:
        write_atomically(options["output"], text.encode() + b"\n")
    if options["as_json"]:
        click.echo(text)
    elif not options["quiet"]:
        from compressor.benchmarks.harness.tables import show
        from compressor.reporting.console import tables

        show(result, tables())
    if result["interrupted"]:
        raise KeyboardInterrupt("interrupted: what was measured until then is in the result")
    if not any("median_ms" in cell for cell in result["cells"]):
        failures = [cell["failure"] for cell in result["cells"] if cell["failure"]]
        raise CompressorError(failures[0] if failures else "nothing was measured")
    rated = [row["accuracy"] for row in result["subjects"] if "accuracy" in row]
    if rated and all("failure" in row for row in rated):
        raise CompressorError(f"accuracy was not measured: {rated[0]['failure']}")


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``name:1,3,32,32`` -> (name, (1, 3, 32, 32)); "" where there is no name."""
    name, _, sizes = text.rpartition(":")
    try:
        shape = tuple(int(part) for part in sizes.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or shape[0] != 1:
        raise UsageError(
            f"--input-shape {text}: give all sizes, a batch of 1 first, such as 1,3,224,224"
        )
    return name, shape


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise UsageError(f"{option} {text}: give whole numbers from 1 on, such as 1,2")
    return tuple(dict.fromkeys(numbers))


def _data(options: dict[str, Any]) -> dict[str, Any] | None:
    if options["data"] is None:
        return None
    root = options["data_root"]
    return {
        "spec": options["data"],
        "root": str(root) if root else None,
        "mean": _floats("--mean", options["mean"]),
        "std": _floats("--std", options["std"]),
    }


def _floats(option: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {text}: give numbers, such as 0.5,0.5,0.5") from None
