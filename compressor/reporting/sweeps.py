"""A sweep as a table, as Markdown and as plots, from the content of its ``sweep.json``."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from compressor.files import write_atomically
from compressor.reporting import axes, svg
from compressor.reporting.axes import Axis
from compressor.reporting.console import table_of
from compressor.reporting.markdown import escaped, joined
from compressor.reporting.svg import Chart
from compressor.reporting.tables import percent

Json = dict[str, Any]
_TRAINING = ("channels", "prune", "share", "calibrate")


def measured(report: Json) -> Json:
    """What a sweep tells of a run, from its report.

    ``accuracy`` is that of the test images, ``validation`` that of the validation images after the
    last epoch (settings are chosen by it), where the last stage that changed weights trained;
    ``faster`` the ratio of the median latencies, dense to compressed.
    """
    stages, ms = report["stages"], report["latency"]["ms"]
    encode = stages["encode"]
    history = [stages[name]["history"] for name in _TRAINING if name in stages]
    return {
        "accuracy": encode["accuracy"],
        "drop": None
        if encode["accuracy"] is None
        else stages["dense"]["accuracy"] - encode["accuracy"],
        "validation": history[-1][-1].get("validation") if history and history[-1] else None,
        "bytes": encode["bytes"],
        "weights_only_bytes": encode["weights_only_bytes"],
        "ratio": encode["ratio"],
        "sparsity": encode["sparsity"],
        "macs": encode["macs"],
        "faster": ms["dense"]["median"] / ms["compressed"]["median"],
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "missed": report["missed"],
    }


FIGURES: dict[str, Callable[[Json], str]] = {
    "bytes": lambda row: f"{row['bytes']:,}",
    "smaller": lambda row: f"{row['ratio']:.1f}x",
    "sparsity": lambda row: percent(row["sparsity"]),
    "validation": lambda row: _measured(row["validation"]),
    "accuracy": lambda row: _measured(row["accuracy"]),
    "drop": lambda row: "-" if row["drop"] is None else f"{100 * row['drop']:.2f}",
    "faster": lambda row: f"{row['faster']:.2f}x",
    "seconds": lambda row: f"{row['seconds']:.0f}",
}


def _measured(fraction: float | None) -> str:
    return "-" if fraction is None else percent(fraction)


def sweep_table(content: Json) -> Table:
    """One row per point, in the order of the grid; below it, what failed and why."""
    table = table_of(tuple(content["axes"]), tuple(FIGURES))
    for row in content["points"]:
        table.add_row(*map(str, row["settings"].values()), *_figures(row))
    return table


def failures(content: Json) -> list[str]:
    """A line for each point that failed or missed a target."""
    lines = []
    for row in content["points"]:
        point = " ".join(f"{key}={value}" for key, value in row["settings"].items())
        if row["state"] == "failed":
            lines.append(f"failed: {point}: {row['error']}")
        lines += [f"missed: {point}: {text}" for text in row.get("missed", [])]
    return lines


def markdown(content: Json, plots: Sequence[str]) -> str:
    """The table as Markdown, with the plots."""
    rows = [
        [escaped(cell) for cell in (*map(str, row["settings"].values()), *_figures(row))]
        for row in content["points"]
    ]
    heads = [*map(escaped, content["axes"]), *FIGURES]
    table = joined(heads, rows, left=len(content["axes"]))
    lines = [f"# Sweep of {content['model']}", "", table]
    lines += [f"\n{line}" for line in failures(content)]
    lines += [f"\n![{name}]({name})" for name in plots]
    return "\n".join(lines) + "\n"


def _figures(row: Json) -> list[str]:
    if row["state"] != "finished":
        return [row["state"], *["-"] * (len(FIGURES) - 1)]
    return [text(row) for text in FIGURES.values()]


def draw(content: Json, folder: Path) -> list[str]:
    """Accuracy against bytes, and against every setting that varies; the names of the SVG files.

    A line joins the points that differ in one setting alone. Without accuracy, bytes are drawn
    against the settings.
    """
    rows = [row for row in content["points"] if row["state"] == "finished"]
    varying = [key for key, values in content["axes"].items() if len(values) > 1]
    if not rows or not varying:
        return []
    rated = all(row["accuracy"] is not None for row in rows)
    names = []
    if rated:
        lines = _lines(rows, varying[0], varying, lambda row: row["bytes"])
        names.append(_plot(folder / "accuracy-bytes.svg", lines, "bytes", rated=True))
    for key in varying:
        lines = _lines(rows, key, varying, lambda row, key=key: row["settings"][key])  # type: ignore[misc]
        what = "accuracy" if rated else "bytes"
        name = f"{what}-{re.sub(r'[^A-Za-z0-9_.-]', '_', key)}.svg"
        names.append(_plot(folder / name, lines, key, rated=rated))
    return names


Lines = dict[str, list[tuple[Any, Json]]]


def _lines(
    rows: Sequence[Json], along: str, varying: Sequence[str], x: Callable[[Json], Any]
) -> Lines:
    """The points by what else varies than ``along``: its name -> (x, row) in the grid's order."""
    lines: Lines = {}
    for row in rows:
        others = [f"{key}={row['settings'][key]}" for key in varying if key != along]
        lines.setdefault(" ".join(others), []).append((x(row), row))
    return lines


def _plot(path: Path, lines: Lines, label: str, *, rated: bool) -> str:
    """Accuracy or bytes over a figure, or over settings that are no numbers, side by side."""
    every = [x for line in lines.values() for x, _ in line]
    number = all(isinstance(x, int | float) and not isinstance(x, bool) for x in every)
    names = [] if number else list(dict.fromkeys(map(str, every)))
    points = {
        name: [
            (float(x) if number else float(names.index(str(x))), _height(row, rated=rated))
            for x, row in line
        ]
        for name, line in lines.items()
    }
    across, up = zip(*(point for line in points.values() for point in line), strict=True)
    what = "top-1 accuracy on the test images" if rated else "bytes"
    chart = Chart(
        f"{what} against {label}",
        "; ".join(f"{name or label}: {_told(line)}" for name, line in points.items()),
        Axis(label, min(across), max(across))
        if number
        else Axis(label, -0.5, len(names) - 0.5, text=_named(names), ticks=range(len(names))),
        Axis(what, min(up), max(up), text=axes.percent if rated else axes.short),
        path.stem,
        height=300,
        width=520,
    )
    for color, (name, line) in enumerate(points.items()):
        chart.series(line, color, name)
    write_atomically(path, svg.file(chart.done()).encode())
    return path.name


def _height(row: Json, *, rated: bool) -> float:
    return float(row["accuracy"] if rated else row["bytes"])


def _told(line: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{x:g} {y:.6g}" for x, y in line)


def _named(names: Sequence[str]) -> Callable[[float], str]:
    return lambda at: names[min(max(round(at), 0), len(names) - 1)]
