"""Accuracy against bytes, every method a curve, from the rows that the benchmarks wrote.

    python -m compressor.benchmarks.codec.plot ROWS.json... --network resnet20 -o FILE.svg

A curve is a method's *frontier*: its rows that no other row of it beats in both bytes and
accuracy. Lines mark the accuracy of the method fp32, and 0.1 and 0.4 points below it; ``--drop``
names others. The smallest file of each method within each of them is printed.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from compressor.reporting import svg
from compressor.reporting.axes import Axis
from compressor.reporting.svg import Chart

Row = dict[str, Any]
GREY = 5
SHOWN = 4.0
"""Points below fp32 that are shown."""


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    files = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.rows]
    rows = [row for file in files for row in file["rows"] if row["network"] == arguments.network]
    if not rows:
        raise SystemExit(f"no row of {arguments.network} in these files")
    for line in smallest(rows, arguments.drop):
        print(line)
    draw(rows, arguments.drop, arguments.output)


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.plot")
    described.add_argument("rows", type=Path, nargs="+", metavar="ROWS.json")
    described.add_argument("--network", required=True)
    described.add_argument("--drop", type=float, nargs="+", default=[0.1, 0.4], help="in points")
    described.add_argument("-o", "--output", type=Path, required=True, help="an SVG file")
    return described


def curves(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The frontier of each method, by bytes; ``Deep Compression, 5 bits`` is one of its curve."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        name = re.sub(r", \d+ bits$", "", row["method"])
        by_method.setdefault(name, []).append(row)
    return {name: frontier(found) for name, found in by_method.items()}


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Rows by bytes, each more accurate than every smaller one."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], -row["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best


def within(rows: Iterable[Row], accuracy: float) -> Row | None:
    """The smallest row of at least that accuracy, give or take 0.0001 points of rounding."""
    good = [row for row in rows if row["accuracy"] >= accuracy - 1e-4]
    return min(good, key=lambda row: int(row["bytes"]), default=None)


def reference(rows: Iterable[Row]) -> float:
    """The accuracy of the float32 network."""
    return max(float(row["accuracy"]) for row in rows if row["method"] == "fp32")


def smallest(rows: Sequence[Row], drops: Iterable[float]) -> list[str]:
    """A line for each drop and method: its smallest file, or that there is none."""
    full = reference(rows)
    lines = []
    for drop in drops:
        lines.append(f"within {drop:g} points of {full:.2f} %")
        for name, found in curves(rows).items():
            row = within(found, full - drop)
            size = "-" if row is None else f"{row['bytes']:,} B  {row['accuracy']:.2f} %"
            lines.append(f"  {name:<28} {size}")
    return lines


def draw(rows: Sequence[Row], drops: Iterable[float], path: Path) -> None:
    """Curves down to SHOWN points below fp32; the same rows give the same file."""
    full = reference(rows)
    every = curves(rows)
    points = {
        name: [(row["bytes"], row["accuracy"]) for row in found if row["accuracy"] > full - SHOWN]
        for name, found in every.items()
    }
    sizes = [size for line in points.values() for size, _ in line]
    images = " / ".join(f"{n:,}" for n in sorted({row["images"] for row in rows}))
    told = "; ".join(f"{name}: {len(line)} files" for name, line in points.items())
    chart = Chart(
        f"{rows[0]['network']}: accuracy against bytes, {images} test images",
        told,
        Axis("bytes of the file, logarithmic", 0.95 * min(sizes), 1.1 * max(sizes), log=True),
        Axis("top-1 accuracy, %", full - SHOWN, full + 0.4),
        "curves",
        height=400,
        width=640,
    )
    for drop in (0.0, *drops):
        chart.level(full - drop, "fp32" if drop == 0 else f"-{drop:g}", under=drop > 0)
    several = [name for name, line in points.items() if len(line) > 1]
    for name, line in points.items():
        if name in several:
            chart.series(line, several.index(name), name)
            continue
        chart.dots(line, GREY, [name])
        for place in line:
            chart.note(*place, name)
    path.write_text(svg.file(chart.done()), encoding="utf-8")


if __name__ == "__main__":
    main()
