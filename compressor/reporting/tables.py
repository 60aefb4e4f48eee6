"""A run's report as tables for a terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from compressor.files import PAGES
from compressor.reporting import metric
from compressor.reporting.channels import channel_notes, channel_table
from compressor.reporting.console import table_of

Json = dict[str, Any]
STAGES = {
    **{"dense": "dense", "channels": "channels", "prune": "pruned", "share": "shared"},
    **{"calibrate": "calibrated", "dead": "without dead channels", "encode": "encoded"},
}
EMITTED = {"onnx": "ONNX", "ort": ".ort", "int8": "INT8", "fp16": "fp16"}
MAX_LAYERS = 24  # more than these are listed with -v only


def titled(title: str, body: RenderableType) -> Group:
    """A heading, what it is over, and an empty line. (Rich wraps a table's own title.)"""
    return Group(Text(title, style="bold"), body, "")


def show(report: Json, folder: str, console: Console, *, verbose: bool = False) -> None:
    """Print the whole report: stages, layers, files, latency, and what was not measured."""
    network, measured = report["network"], report["latency"]
    title = f"{network['name']} ({network['arch']}), {network['fp32_bytes'] // 4:,} parameters"
    console.print(titled(title, stage_table(report)))
    if "channels" in report["stages"]:
        _show_channels(report, console, verbose=verbose)
    if "targets" in report:
        console.print(titled("tried for the target", trial_table(report)))
    layers = layer_table(report)
    if verbose or layers.row_count <= MAX_LAYERS:
        console.print(titled("layers, and how many times smaller after each stage", layers))
    else:
        console.print(f"-v lists all {layers.row_count} layers\n", style="dim")
    console.print(titled(f"files in {folder}", file_table(report)))
    title = f"{measured['runtime']}, batch {measured['batch']}, {measured['threads']} thread"
    console.print(titled(f"{title}, {measured['calls']} calls each", latency_table(measured)))
    for note in _notes(report):
        console.print(note, markup=False, soft_wrap=True)


def _show_channels(report: Json, console: Console, *, verbose: bool) -> None:
    table = channel_table(report["stages"]["channels"])
    if verbose or table.row_count <= MAX_LAYERS:
        console.print(titled("channels", table))
    for note in channel_notes(report, verbose=verbose):
        console.print(note, markup=False, soft_wrap=True)
    console.print()


def stage_table(report: Json) -> Table:
    """One row per stage: bytes really written, and what the network is worth at that point."""
    judged = metric.name(report)
    figures = ("bytes", "smaller", "sparsity", "bits/w", judged, "params != 0", "MACs != 0")
    table = table_of(("stage",), figures)
    for key, label in STAGES.items():
        stage = report["stages"].get(key, {})
        if "bytes" not in stage:  # left out, or it found nothing to do
            continue
        table.add_row(
            label,
            f"{stage['bytes']:,}",
            f"{report['network']['fp32_bytes'] / stage['bytes']:.1f}x",
            f"{100 * stage['sparsity']:.2f} %",
            f"{stage['bits_per_weight']:.2f}",
            metric.shown(report, stage["accuracy"]),
            f"{stage['nonzero']:,}",
            f"{stage['nonzero_macs']:,}",
        )
    return table


def layer_table(report: Json) -> Table:
    """One row per layer: what the stages made of it, and its size after each."""
    stages = report["stages"]
    columns = {key: _by_layer(stages, key) for key in ("prune", "share", "calibrate", "encode")}
    present = [key for key, rows in columns.items() if rows]
    figures = ("shape", "non-zero", "sparsity", "threshold", "k", *(STAGES[key] for key in present))
    table = table_of(("layer",), figures)
    for name, row in columns["encode"].items():
        pruned = columns["prune"].get(name, {})
        shared = columns["share"].get(name) or columns["calibrate"].get(name, {})
        table.add_row(
            name,
            "x".join(map(str, row["shape"])),
            f"{row['nonzero']:,}",
            f"{100 * row['sparsity']:.2f} %",
            f"{pruned['threshold']:.4f}" if "threshold" in pruned else "-",
            str(shared.get("centroids", "-")),
            *(f"{columns[key][name]['ratio']:.1f}x" for key in present),
        )
    return table


def trial_rows(report: Json) -> list[tuple[str, ...]]:
    """Of each trial: how, whether it meets the targets, bytes, ratio, zeros, bits, points lost."""
    rows: list[tuple[str, ...]] = []
    for row in report["targets"]["tried"]:
        size, drop = row["bytes"], row["drop"]
        figures = (
            "not possible" if size is None else f"{size:,}",
            "-" if size is None else f"{report['network']['fp32_bytes'] / size:.1f}x",
            f"{100 * row['sparsity']:.2f} %",
            f"{row['bits']:.2f}",
            "-" if drop is None else f"{drop:+.2f}",
        )
        how = "retrained" if row["trained"] else "as pruned"
        rows.append((how, "yes" if row["met"] else "no", *figures))
    return rows


def trial_table(report: Json) -> Table:
    """One row per trial of the search for settings: which of them the targets allow."""
    names, figures = ("trial", "meets it"), ("bytes", "smaller", "sparsity", "bits", "drop")
    table = table_of(names, figures)
    for row in trial_rows(report):
        table.add_row(*row)
    return table


def file_table(report: Json) -> Table:
    """The files that were written, and which of them is small."""
    files, encode, export = report["files"], report["stages"]["encode"], report["stages"]["export"]
    fp32 = report["network"]["fp32_bytes"]
    table = table_of(("file",), ("bytes", "smaller"))
    table.add_column("what it is")
    rows = (
        (files["artifact"], encode["bytes"], "to ship: weights and graph"),
        ("  weights only", encode["weights_only_bytes"], "without the graph"),
        (onnx_files(files), export["bytes"], "to run: dense, in any runtime"),
        ("  gzipped", export["gzip_bytes"], "the same, as downloaded"),
    )
    for name, size, what in (*rows, *_optional_files(files, export)):
        table.add_row(name, f"{size:,}", f"{fp32 / size:.1f}x", what)
    for name, what in zip(
        PAGES, ("all of this and more, with plots", "for a pull request"), strict=True
    ):
        table.add_row(name, "", "", what)
    return table


def onnx_files(files: Json) -> str:
    """The ONNX file's name; where its weights lie beside it, theirs as well."""
    return " + ".join(files[key] for key in ("onnx", "onnx_data") if key in files)


def _optional_files(files: Json, export: Json) -> Iterator[tuple[str, int, str]]:
    what = {
        "ort": "to run: dense, in mobile and web builds of ONNX Runtime",
        "int8": "to run: 8-bit integers, in any ONNX runtime",
        "fp16": "to run: half precision, for GPUs and NPUs",
    }
    for key, text in what.items():
        if key in export:
            yield files[key], export[key]["bytes"], text
            yield "  gzipped", export[key]["gzip_bytes"], "the same, as downloaded"


def emitted_table(rows: dict[str, Json], artifact_bytes: int) -> Table:
    """The files made of an artifact: bytes, and what they compute."""
    table = table_of(("file",), ("bytes", "artifact's", "accuracy"))
    table.add_column("outputs differ from the ONNX file's by")
    for row in rows.values():
        size, accuracy = row["bytes"], percent(row["accuracy"])
        times = f"{size / artifact_bytes:.1f}x"
        table.add_row(row["file"], f"{size:,}", times, accuracy, difference_of(row))
    return table


def percent(fraction: float | None) -> str:
    """An accuracy for people; "not measured" where there is none."""
    return "not measured" if fraction is None else f"{100 * fraction:.2f} %"


def difference_of(row: Json) -> str:
    """How far a file's outputs are from the ONNX file's, and how far they may be."""
    found = row["difference_relative"]
    if not row["tolerance"]:
        return "nothing: it is that file"
    if found is None:
        return "more than can be said: they are not finite"
    return f"{found:.1e} of the largest output (up to {row['tolerance']:g})"


def _by_layer(stages: Json, key: str) -> dict[str, Json]:
    return {row["layer"]: row for row in stages.get(key, {}).get("layers", [])}


def latency_table(measured: Json) -> Table:
    """Milliseconds per call, before and after, and the ratio of the medians."""
    table = table_of(("ONNX file",), ("median ms", "p5", "p95", "minimum", "faster"))
    dense = measured["ms"]["dense"]["median"]
    for name, ms in measured["ms"].items():
        figures = (ms[key] for key in ("median", "p5", "p95", "minimum"))
        table.add_row(
            name, *(f"{figure:.3f}" for figure in figures), f"{dense / ms['median']:.2f}x"
        )
    return table


def _notes(report: Json) -> list[str]:
    export, data = report["stages"]["export"], report["data"]
    notes = [
        *_dead_notes(report["stages"].get("dead", {})),
        "zeros alone do not make a dense runtime faster, nor a dense ONNX file smaller: it runs "
        f"all {report['stages']['encode']['macs']:,} MACs",
        f"ONNX against PyTorch on {export['compared_on']}: largest difference "
        f"{export['difference_absolute']:.1e} ({export['difference_relative']:.1e} relative)",
    ]
    if data is not None:
        notes.append(
            f"{metric.name(report)} on the {data['test_images']:,} test images of {data['name']}, "
            "last epoch"
        )
    if "targets" in report:
        notes.append(target_note(report["targets"]))
    notes += _emitted_notes(report)
    if "int8" in export:
        notes += _int8_notes(export["int8"], report["latency"]["ms"])
    return notes + [f"not measured: {item}" for item in report["not_measured"]]


def target_note(targets: Json) -> str:
    """What the search for settings went by."""
    if targets["drop"] is None:
        return f"settings were found by the {targets['ranked_by']}; no accuracy was measured"
    return (
        f"settings were found by the {targets['ranked_by']}, of which there are "
        f"{targets['validation_images']:,}: accuracy there {percent(targets['validation_dense'])} "
        f"before, {percent(targets['validation_accuracy'])} after"
    )


def _dead_notes(dead: Json) -> list[str]:
    """Which layers lost channels without effect, or why they could not."""
    if "why" in dead:
        return [f"dead channels were looked for in vain: {dead['why']}"]
    rows = [f"{row['layer']} {row['before']} -> {row['after']}" for row in dead.get("removed", [])]
    return [f"dead channels removed: {', '.join(rows)}"] if rows else []


def _emitted_notes(report: Json) -> list[str]:
    """What the files compute that were asked for besides."""
    export = report["stages"]["export"]
    return [
        f"{EMITTED[name]}: {metric.name(report)} {metric.shown(report, export[name]['accuracy'])} "
        "in ONNX Runtime on this CPU; outputs differ from the ONNX file's by "
        f"{difference_of(export[name])}"
        for name in EMITTED
        if name in export
    ]


def _int8_notes(export: Json, ms: Json) -> list[str]:
    notes = [
        f"INT8: {export['quantized_layers']} of {export['layers']} layers quantized, ranges from "
        f"{export['calibration_images']:,} training images"
    ]
    quantized, fp32 = ms["int8"]["median"], ms["compressed"]["median"]
    if quantized >= fp32:
        notes.append(
            f"INT8 is no faster than fp32 here: {quantized:.3f} ms against {fp32:.3f} ms; "
            "other CPUs and runtimes differ"
        )
    return notes
