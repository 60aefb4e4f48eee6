"""The peers' rows as a table, and as two plots a network: accuracy against bytes, and time."""

from collections.abc import Sequence
from typing import Any

from compressor.reporting import svg
from compressor.reporting.axes import Axis, percent
from compressor.reporting.comparison import frontier
from compressor.reporting.headline import points
from compressor.reporting.markdown import joined
from compressor.reporting.markup import Node
from compressor.reporting.svg import Chart

Row = dict[str, Any]
Place = tuple[float, float]
TITLES = {
    "resnet20-cifar10": "ResNet-20, CIFAR-10",
    "lenet5-mnist": "LeNet-5, MNIST",
    "lenet5-digits": "LeNet-5, scikit-learn's digits",
}
COLORS = {
    "compress": 0, "Torch-Pruning": 1, "NNCodec": 2, "ONNX Runtime": 3, "torch.nn.utils.prune": 4,
    "PyTorch": 5,
}  # fmt: skip
HEADINGS = (
    *("", "method", "tool", "looks at", "file", "bytes", "smaller", "accuracy, %"),
    *("points [95 %]", "MACs", "faster [95 %]"),
)


def markdown(result: Row) -> str:
    """A table a network, each with its conditions."""
    return "\n".join(part for network in result["networks"] for part in _network(network, result))


def _network(network: Row, result: Row) -> list[str]:
    cells = [_cells(number, row, network) for number, row in _numbered(network)]
    failed = [row for row in network["rows"] if "onnx" not in row]
    return [
        f"**{title(network)}, {network['test_images']:,} test images**",
        "",
        joined(HEADINGS, cells, left=5),
        "",
        conditions(network, result),
        *(f"\n{row['method']} failed: {row['failure']}." for row in failed),
        "",
    ]


def title(network: Row) -> str:
    name = f"{network['network']}-{network['data']}"
    return TITLES.get(name, name)


def conditions(network: Row, result: Row) -> str:
    """What holds for all rows, and what makes a reader doubt."""
    training = network["training"]
    where = result["environment"]
    text = (
        f"Whoever trains has the same {training['images']:,} images once "
        f"({training['optimizer'].upper()}, rate {training['lr']:g}, falling along a half cosine). "
        "Bytes are those of the whole file; a .dcz and an .onnx hold the graph, the others do not. "
        "Points are against fp32, over the same images. Time is in ONNX Runtime "
        f"{where['libraries']['onnxruntime']} on one thread of an {where['cpu']}, batch 1, all "
        "files in turns; files that hold one network have one time. "
    )
    return text + " ".join(f"Warning: {each}." for each in network["warnings"])


def _numbered(network: Row) -> list[tuple[int, Row]]:
    return list(enumerate((row for row in network["rows"] if "onnx" in row), 1))


def _cells(number: int, row: Row, network: Row) -> tuple[str, ...]:
    fp32 = network["rows"][0]["bytes"]
    accuracy = row["accuracy"] or {}
    value = accuracy.get("value")
    code = row["tool"] == "compress"
    return (
        str(number),
        f"`{row['method']}`" if code else row["method"],
        row["tool"],
        row["needs"],
        row["file"],
        f"{row['bytes']:,}",
        f"{fp32 / row['bytes']:.1f}x",
        "-" if value is None else f"{100 * value:.2f}",
        _change(accuracy.get("change")),
        "-" if row["macs"] is None else f"{row['macs']:,}",
        _faster(row),
    )


def _change(change: Row | None) -> str:
    if change is None:
        return ""
    low, high = points(change["low"]), points(change["high"])
    return f"{points(change['value'])} [{low}, {high}]"


def _faster(row: Row) -> str:
    faster = row["faster"]
    if faster is None:
        return "" if row["median_ms"] is None else f"{row['median_ms']['value']:.3f} ms"
    return f"{faster['value']:.2f}x [{faster['low']:.2f}, {faster['high']:.2f}]"


# ---- the picture -------------------------------------------------------------------------------


def picture(result: Row) -> str:
    """An SVG file: a row a network, on the left bytes and on the right time."""
    charts = []
    for place, network in enumerate(result["networks"]):
        rows = [
            (number, row)
            for number, row in _numbered(network)
            if "value" in (row["accuracy"] or {}) and row["median_ms"]
        ]
        charts += [
            _pareto(network, rows, "bytes", f"bytes-{place}"),
            _pareto(network, rows, "ms", f"ms-{place}"),
        ]
    return svg.file(svg.sheet(charts, "What others make of the same networks", columns=2))


def _pareto(network: Row, rows: Sequence[tuple[int, Row]], cost: str, name: str) -> Node:
    """Accuracy over a cost, each dot with its number in the table."""

    def at(row: Row) -> Place:
        x = row["bytes"] if cost == "bytes" else row["median_ms"]["value"]
        return float(x), float(row["accuracy"]["value"])

    where = [at(row) for _, row in rows]
    unit = "bytes of the file" if cost == "bytes" else "ms a call"
    low, high = min(y for _, y in where), max(y for _, y in where)
    pad = 0.08 * (high - low) or 0.01
    told = "; ".join(
        f"{n} {row['tool']}, {row['method']}: {x:,.6g} {cost}, {percent(y)}"
        for (n, row), (x, y) in zip(rows, where, strict=True)
    )
    chart = Chart(
        f"{title(network)}: accuracy against {unit}",
        told,
        Axis(f"{unit}, logarithmic", 0.85 * min(x for x, _ in where),
             1.3 * max(x for x, _ in where), log=True),
        Axis(f"{title(network)}: accuracy", low - pad, min(1.0, high + pad), text=percent),
        name,
        height=340,
        width=470,
    )  # fmt: skip
    chart.curve([where[index] for index in frontier(where)], 5, css="thin")
    for (_, row), place in zip(rows, where, strict=True):
        chart.dots([place], _color(row["tool"]), [f"{row['tool']}, {row['method']}"])
    for numbers, place in _labels(chart, [n for n, _ in rows], where):
        chart.note(*place, _ranges(numbers))
    for tool in dict.fromkeys(row["tool"] for _, row in rows):
        chart.named(_color(tool), tool)
    return chart.done()


def _labels(
    chart: Chart, numbers: Sequence[int], where: Sequence[Place]
) -> list[tuple[list[int], Place]]:
    """Numbers with their places; dots too near each other for two labels share one."""
    found: list[tuple[list[int], Place]] = []
    for number, (x, y) in sorted(zip(numbers, where, strict=True), key=lambda each: -each[1][0]):
        for group, (at, high) in found:
            near = abs(chart.across(at) - chart.across(x)) < 20
            if near and abs(chart.up(high) - chart.up(y)) < 10:
                group.append(number)
                break
        else:
            found.append(([number], (x, y)))
    return [(sorted(group), place) for group, place in found]


def _ranges(numbers: Sequence[int]) -> str:
    """``1-3, 7`` for 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _color(tool: str) -> int:
    return next((color for name, color in COLORS.items() if tool.startswith(name)), 5)
