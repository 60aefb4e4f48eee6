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

Row = dict[str, Any]


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
    described.add_argument("-o", "--output", type=Path, required=True, help=".svg, .png or .pdf")
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
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "codec"  # the same rows give the same file
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    full = reference(rows)
    for drop in (0.0, *drops):
        label = " fp32" if drop == 0 else f" -{drop:g}"
        axes.axhline(full - drop, color="0.8", linewidth=0.8, zorder=0)
        axes.annotate(
            label,
            (1, full - drop),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            va="baseline" if drop == 0 else "top",
        )
    for name, found in curves(rows).items():
        sizes = [row["bytes"] / 1000 for row in found]
        axes.plot(sizes, [row["accuracy"] for row in found], marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks([50, 100, 200, 500, 1000, 2000], minor=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.set_ylim(bottom=full - 4, top=full + 0.4)
    axes.set_xlabel("file, kB")
    axes.set_ylabel("top-1 accuracy, %")
    images = sorted({row["images"] for row in rows})
    axes.set_title(f"{rows[0]['network']}, {' / '.join(f'{n:,}' for n in images)} test images")
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    main()
