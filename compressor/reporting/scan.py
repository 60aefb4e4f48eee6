"""A scan for people: what is most and least sensitive, and the curves as plots."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from compressor.reporting import axes, histograms, svg
from compressor.reporting.axes import Axis
from compressor.reporting.console import table_of
from compressor.reporting.markup import Node
from compressor.reporting.svg import Chart
from compressor.reporting.tables import percent, titled

Json = dict[str, Any]
AXES = {
    "weights": ("sparsity", "weights set to zero"),
    "channels": ("ratio", "channels removed"),
    "bits": ("bits", "bits of a weight"),
}
COLUMNS = 4


def show(found: Json, console: Console) -> None:
    """Print each kind's most and least sensitive units, and what the proposals gave."""
    data, dense = found["data"], found["dense"]
    for kind, ends in found["sensitivity"].items():
        table = table_of((kind,), ("mean rise of the loss", "worst accuracy", "at"))
        for row in ranked(found, kind):
            worst = min(row["points"], key=lambda point: point["accuracy"])
            at = worst[AXES[kind][0]]
            table.add_row(
                row["unit"], f"{row['mean_increase']:.4f}", percent(worst["accuracy"]), f"{at:.3g}"
            )
        title = f"{kind}: {ends['most']} is most sensitive, {ends['least']} least"
        console.print(titled(title, table))
    console.print(
        f"{percent(dense['accuracy'])} before, on {data['images']:,} validation images of "
        f"{data['name']}, held out of its training images: a network trained elsewhere may know "
        "them",
        soft_wrap=True,
    )
    for name, proposal in found["proposals"].items():
        console.print(
            f"proposed for {name}: {percent(proposal['accuracy'])}, "
            f"{100 * proposal['lost']:.2f} % of these images lost, before any retraining",
            soft_wrap=True,
        )


def ranked(found: Json, kind: str) -> list[Json]:
    """The curves of one kind, the most sensitive first."""
    rows = [curve for curve in found["curves"] if curve["kind"] == kind]
    return sorted(rows, key=lambda curve: -curve["mean_increase"])


def draw(found: Json) -> dict[str, bytes]:
    """SVG files by name: a plot for each kind, and one of the weights' histograms.

    The same scan gives the same files.
    """
    files = {}
    for kind, (key, label) in AXES.items():
        curves = [curve for curve in found["curves"] if curve["kind"] == kind]
        if curves:
            files[f"{kind}.svg"] = _sheet(
                [_curve(n, each, key, found) for n, each in enumerate(curves)],
                f"Accuracy against {label}",
            )
    rows = found["histograms"]
    drawn = [_histogram(number, row) for number, row in enumerate(rows)]
    files["histograms.svg"] = _sheet(drawn, "Weights other than 0 of each layer")
    return files


def _curve(number: int, curve: Json, key: str, found: Json) -> Node:
    """Accuracy over one kind of change of one unit; fewer bits are to the right.

    All units have one scale of accuracies, to be compared by eye.
    """
    dense, every = found["dense"]["accuracy"], found["curves"]
    heights = [dense, *(point["accuracy"] for each in every for point in each["points"])]
    sign = -1 if key == "bits" else 1
    points = sorted((sign * point[key], point["accuracy"]) for point in curve["points"])
    chart = Chart(
        curve["unit"],
        f"{percent(dense)} dense, then {percent(points[0][1])} to {percent(points[-1][1])}",
        Axis(AXES[curve["kind"]][1], points[0][0], points[-1][0], text=lambda x: f"{sign * x:g}"),
        Axis(_short(curve["unit"]), min(heights), max(heights), text=axes.percent),
        f"unit{number}",
        height=170,
        width=260,
    )
    chart.level(dense, "dense")
    chart.series(points, 0, "")
    return chart.done()


def _histogram(number: int, row: Json) -> Node:
    edges = histograms.edges(row)
    chart = Chart(
        f"weights of {row['layer']}",
        f"{sum(row['counts']):,} weights other than 0, {row['zeros']:,} zeros",
        Axis("weight", edges[0], edges[-1]),
        Axis(_short(row["layer"]), 0.7, max(1, *row["counts"]), log=True),
        f"layer{number}",
        height=170,
        width=260,
    )
    chart.steps(edges, row["counts"], 0, wash=True)
    return chart.done()


def _sheet(charts: Sequence[Node], title: str) -> bytes:
    return svg.file(svg.sheet(charts, title, columns=COLUMNS)).encode()


def _short(unit: str) -> str:
    first, *others = unit.split("+")
    return f"{first} +{len(others)}" if others else first
