"""The result of ``compress bench`` for a terminal."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from compressor.benchmarks.harness.names import RUNTIMES
from compressor.reporting.console import table_of
from compressor.reporting.tables import percent, titled

Json = dict[str, Any]


def show(result: Json, console: Console) -> None:
    """Sizes, times, accuracy, layers, and how far all this can be trusted."""
    if any("bytes" in row for row in result["subjects"]):
        console.print(titled("files", size_table(result)))
    for (batch, threads), cells in _settings(result).items():
        title = f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
        if any("median_ms" in cell for cell in cells):
            console.print(titled(title, time_table(cells)))
            console.print(titled(f"{title}: what else it takes", resource_table(cells)))
    for row in result["subjects"]:
        if "per_layer" in row and "failure" in row["per_layer"]:
            console.print(f"{row['label']}, layers: {row['per_layer']['failure']}", markup=False)
    layers = [row for row in result["subjects"] if "layers" in row.get("per_layer", {})]
    for group in [layers] if len(layers) == 2 else [[each] for each in layers]:
        names = " | ".join(row["label"] for row in group)
        console.print(titled(f"layers in ONNX Runtime: {names}", layer_table(group)))
    for row in result["subjects"]:
        if "sparse" in row:
            _show_sparse(row, console)
    for line in notes(result):
        console.print(line, markup=False, soft_wrap=True)


def size_table(result: Json) -> Table:
    figures = ("MACs", "MACs != 0", "params", "params != 0", "bytes", "gzip", "zstd", "artifact")
    accuracy = any("accuracy" in row for row in result["subjects"])
    table = table_of(("file",), (*figures, *(("accuracy",) if accuracy else ())))
    for row in result["subjects"]:
        keys = ("macs", "nonzero_macs", "parameters", "nonzero")
        sizes = ("bytes", "gzip_bytes", "zstd_bytes", "artifact_bytes")
        cells = [_number(row.get(key)) for key in (*keys, *sizes)]
        table.add_row(row["label"], *cells, *([_accuracy(row)] if accuracy else []))
    return table


def time_table(cells: list[Json]) -> Table:
    columns = ("median ms", "95 %", "p5", "p95", "minimum", "faster")
    table = table_of(("file", "runtime"), columns)
    for cell in cells:
        if "median_ms" not in cell:
            table.add_row(cell["subject"], cell["runtime"], "-", *[""] * (len(columns) - 1))
            continue
        middle = cell["median_ms"]
        table.add_row(
            cell["subject"],
            cell["runtime"],
            _ms(middle["value"]),
            f"{_ms(middle['low'])}..{_ms(middle['high'])}",
            *(_ms(cell[key]) for key in ("p5_ms", "p95_ms", "minimum_ms")),
            _faster(cell),
        )
    return table


def resource_table(cells: list[Json]) -> Table:
    """CPU time a call, throughput, file to first answer, peak memory less that of the imports."""
    table = table_of(
        ("file", "runtime"), ("CPU ms", "images/s", "import ms", "load ms", "peak MB", "own MB")
    )
    for cell in (each for each in cells if "median_ms" in each):
        table.add_row(
            cell["subject"],
            cell["runtime"],
            _ms(cell["cpu_ms"]),
            f"{cell['images_per_second']:,.0f}",
            *(_ms(median(cell[key])) for key in ("import_ms", "load_ms")),
            _megabytes(cell["peak_bytes"]),
            _megabytes(cell["peak_bytes"], cell["imports_bytes"]),
        )
    return table


def layer_table(rows: list[Json]) -> Table:
    """All files side by side, matched by the names of their layers."""
    columns = tuple(
        f"{key}{mark}"
        for key in ("MACs", "params", "bytes", "MACs/B", "ms")
        for mark in (("", " after") if len(rows) == 2 else ("",))
    )
    table = table_of(("layer",), columns)
    found = [{layer["layer"]: layer for layer in row["per_layer"]["layers"]} for row in rows]
    for name in dict.fromkeys(name for each in found for name in each):
        layers = [each.get(name) for each in found]
        keys = ("macs", "parameters", "bytes_moved", "macs_per_byte", "ms")
        table.add_row(name, *(_layer_cell(layer, key) for key in keys for layer in layers))
    others = [row["per_layer"]["others"] for row in rows]
    for name in dict.fromkeys(name for each in others for name in each):
        blanks = [""] * (4 * len(rows))
        table.add_row(name, *blanks, *(_ms(o[name]) if name in o else "-" for o in others))
    return table


def notes(result: Json) -> Iterator[str]:
    """How it was measured, what failed, and what must not be concluded."""
    for row in result["subjects"]:
        if "failure" in row:
            yield f"{row['label']}: {row['failure']}"
        if "export_error" in row:
            yield f"{row['label']}: {row['export_error']}"
        if "failure" in row.get("accuracy", {}):
            yield f"{row['label']}, accuracy: {row['accuracy']['failure']}"
    told = {(row["label"], row.get("failure")) for row in result["subjects"]}
    for cell in result["cells"]:
        if cell["failure"] and (cell["subject"], cell["failure"]) not in told:
            where = f"{cell['subject']} in {cell['runtime']}, batch {cell['batch']}"
            yield f"{where}: {cell['failure']}"
    measured = [cell for cell in result["cells"] if "median_ms" in cell]
    if measured:
        runtimes = dict.fromkeys(cell["runtime"] for cell in measured)
        names = ", ".join(f"{name} is {RUNTIMES[name]}" for name in runtimes)
        yield f"{names}; on {result['plan']['device']}"
        launches = [cell["launches"] for cell in measured]
        yield (
            f"medians of {min(launches)} to {max(launches)} launches, networks in turns; brackets "
            f"hold the median with 95 %; faster: than {result['subjects'][0]['label']} in the same "
            "runtime"
        )
    if any("layers" in row.get("per_layer", {}) for row in result["subjects"]):
        yield from _overheads(result)
    for text in result["warnings"] if measured else []:
        yield f"warning: {text}"
    if result["interrupted"]:
        yield "interrupted: this is what was measured until then"


def _overheads(result: Json) -> Iterator[str]:
    for row in result["subjects"]:
        cells = [
            cell
            for cell in result["cells"]
            if cell["subject"] == row["label"] and cell["runtime"] == "ort" and "median_ms" in cell
        ]
        if cells and "kernels_ms" in row["per_layer"]:
            kernels, whole = row["per_layer"]["kernels_ms"], cells[0]["median_ms"]["value"]
            yield (
                f"{row['label']}: its kernels take {_ms(kernels)} ms together while profiled, a "
                f"call takes {_ms(whole)} ms unprofiled"
            )


def _show_sparse(row: Json, console: Console) -> None:
    found = row["sparse"]
    if "failure" in found:
        console.print(f"{row['label']}, sparse: {found['failure']}", markup=False)
        return
    ways = ("torch", "ort", "scipy-csr", "torch-csr")
    table = table_of(("linear layer",), ("shape", "sparsity", *(f"{way} ms" for way in ways)))
    for layer in found["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        times = [_ms(layer["ms"][way]) for way in ways]
        table.add_row(layer["layer"], shape, percent(layer["sparsity"]), *times)
    title = f"{row['label']}: CSR beside dense, batch {found['batch']}"
    console.print(titled(title, table))
    for each in found["crossovers"]:
        said = ", ".join(
            f"{name} from {percent(at)}" if at is not None else f"{name} never"
            for name, at in each["pays_from"].items()
        )
        shape = "x".join(map(str, each["shape"]))
        console.print(f"{shape}, random zeros, pays: {said}", markup=False, soft_wrap=True)


def _settings(result: Json) -> dict[tuple[int, int], list[Json]]:
    found: dict[tuple[int, int], list[Json]] = {}
    for cell in result["cells"]:
        found.setdefault((cell["batch"], cell["threads"]), []).append(cell)
    return found


def _faster(cell: Json) -> str:
    if cell["faster"] is None:
        return "-"
    value, low, high = (cell["faster"][key] for key in ("value", "low", "high"))
    text = f"{value:.2f}x [{low:.2f}, {high:.2f}]"
    return f"{text} {cell['conclusion']}" if low <= 1 <= high else text


def _accuracy(row: Json) -> str:
    found = row.get("accuracy", {})
    if "value" not in found:
        return "-"
    text = percent(found["value"])
    if "change" in found:
        value, low, high = (100 * found["change"][key] for key in ("value", "low", "high"))
        text += f" ({value:+.2f} [{low:+.2f}, {high:+.2f}])"
    return text


def _layer_cell(layer: Json | None, key: str) -> str:
    if layer is None or layer[key] is None:
        return "-"
    if key == "ms":
        return _ms(layer[key])
    return f"{layer[key]:.1f}" if key == "macs_per_byte" else f"{layer[key]:,}"


def _megabytes(peak: int | None, less: int | None = 0) -> str:
    return "-" if peak is None or less is None else f"{(peak - less) / 1e6:.0f}"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 10 else f"{value:.4f}"
