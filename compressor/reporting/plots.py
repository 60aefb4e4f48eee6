"""The charts of a run's report, each from the report as data; None where there is nothing."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from compressor.reporting import metric
from compressor.reporting.axes import Axis, percent
from compressor.reporting.histograms import edges
from compressor.reporting.intervals import Interval, wilson
from compressor.reporting.markup import Node
from compressor.reporting.svg import Chart, bars
from compressor.reporting.tables import STAGES

Json = dict[str, Any]
PARTS = {
    "values": "values",
    "gaps": "gaps",
    "tables": "tables",
    "codebook": "codebooks",
    "other": "counts and flags",
    "directory": "header and directory",
    "graph": "graph",
}


def stages_of(report: Json) -> list[tuple[str, Json]]:
    """(label, what it reported) of every stage that left a network."""
    found = [(label, report["stages"].get(key, {})) for key, label in STAGES.items()]
    return [(label, stage) for label, stage in found if "bytes" in stage]


def stage_bytes(report: Json) -> Node:
    """Bytes on disk after each stage."""
    fp32 = report["network"]["fp32_bytes"]
    rows = [
        (label, [stage["bytes"]], f"{stage['bytes']:,} · {fp32 / stage['bytes']:.1f}x")
        for label, stage in stages_of(report)
    ]
    told = "; ".join(f"{label} {text}" for label, _, text in rows)
    return bars("stages", "Bytes after each stage", told, rows)


def breakdown(report: Json) -> Node:
    """Bytes of the artifact by what they hold."""
    found = report["stages"]["encode"]["breakdown"]
    total = report["stages"]["encode"]["bytes"]
    rows = [
        (label, [found[part]], f"{found[part]:,} · {100 * found[part] / total:.1f} %")
        for part, label in PARTS.items()
    ]
    told = "; ".join(f"{label} {text}" for label, _, text in rows)
    return bars("breakdown", "Bytes of the artifact by what they hold", told, rows)


def training(report: Json) -> Node | None:
    """Validation accuracy epoch by epoch, through all stages that train."""
    runs = [(label, stage.get("history", [])) for label, stage in stages_of(report)]
    curves, at = [], 0
    for label, rows in runs:
        known = [(at + n + 1, row.get("validation")) for n, row in enumerate(rows)]
        known = [(x, y) for x, y in known if y is not None]
        at += len(rows)
        if known:
            curves.append((label, known))
    if not curves:
        return None
    values = [y for _, curve in curves for _, y in curve]
    shown = partial(metric.shown, report)
    told = "; ".join(f"{label}: {shown(c[0][1])} to {shown(c[-1][1])}" for label, c in curves)
    chart = Chart(
        f"Validation {metric.name(report)} through training",
        told,
        Axis("epoch", 0, at, ticks=range(0, at + 1, -(-at // 8))),
        Axis(f"validation {metric.name(report)}", min(values), max(values), text=shown),
        "training",
    )
    for color, (label, curve) in enumerate(curves):
        chart.curve(curve, color)
        chart.dots(curve if len(curve) <= 12 else curve[-1:], color)
        chart.named(color, label)
    return chart.done()


def test_accuracy(report: Json) -> Node | None:
    """Accuracy on the test images after each stage, with its interval."""
    known = [(label, stage["accuracy"]) for label, stage in stages_of(report)]
    known = [(label, value) for label, value in known if value is not None]
    count = (report["data"] or {}).get("test_images", 0) if metric.counted(report) else 0
    spreads = [wilson(value, count) for _, value in known]
    found = [(label, v, s) for (label, v), s in zip(known, spreads, strict=True) if s]
    if not found:
        return None
    low, high = min(s[0] for _, _, s in found), max(s[1] for _, _, s in found)
    told = "; ".join(f"{label} {percent(v)}" for label, v, _ in found)
    chart = Chart(
        "Test accuracy after each stage",
        told,
        Axis("stage", 0.5, len(found) + 0.5, text=_stage_at(found), ticks=range(1, len(found) + 1)),
        Axis("test accuracy", low, high, text=percent),
        "accuracy",
    )
    for number, (label, value, spread) in enumerate(found, 1):
        chart.spread(number, *spread, 0)
        chart.dots([(number, value)], 0, [f"{label}: {percent(value)}"])
    return chart.done()


def _stage_at(found: list[tuple[str, float, Interval]]) -> Callable[[float], str]:
    return lambda number: found[min(max(round(number), 1), len(found)) - 1][0]


def trials(report: Json) -> Node | None:
    """Points lost against bytes of what was tried for a target, and the targets as lines."""
    targets = report.get("targets", {})
    rows = [row for row in targets.get("tried", []) if None not in (row["bytes"], row["drop"])]
    if not rows:
        return None
    most, limit = targets["most_bytes"], targets["max_drop"]
    sizes = [row["bytes"] for row in rows] + ([most] if most is not None else [])
    drops = [row["drop"] for row in rows] + ([limit] if limit is not None else [])
    pad = 0.05 * (max(drops) - min(drops)) or 0.1
    told = "; ".join(f"{row['bytes']:,} bytes, {row['drop']:+.2f} points lost" for row in rows)
    chart = Chart(
        "What was tried for the target",
        told,
        Axis("bytes of the artifact, logarithmic", 0.9 * min(sizes), 1.1 * max(sizes), log=True),
        Axis("points lost on validation images", min(drops) - pad, max(drops) + pad),
        "trials",
    )
    if most is not None:
        chart.upright(most, 5)
    if limit is not None:
        chart.level(limit, f"at most {limit:g}")
    for color, (label, trained) in enumerate((("as pruned", False), ("retrained", True))):
        places = [(row["bytes"], row["drop"]) for row in rows if row["trained"] == trained]
        if places:
            chart.dots(places, color)
            chart.named(color, label)
    return chart.done()


def sparsity(report: Json) -> Node:
    """The fraction of zeros in each layer, in the network's order."""
    rows = report["stages"]["encode"]["layers"]
    values = [row["sparsity"] for row in rows]
    told = f"{len(rows)} layers, from {percent(min(values, default=0))} to "
    told += f"{percent(max(values, default=0))} zeros; the table of layers has each"
    chart = Chart(
        "Sparsity per layer",
        told,
        Axis("layer, in the network's order", 0.5, len(rows) + 0.5),
        Axis("zeros", 0, 1, text=percent),
        "sparsity",
    )
    chart.steps([n + 0.5 for n in range(len(rows) + 1)], values, 0, wash=True)
    return chart.done()


def weights(name: str, number: int, before: Json | None, after: Json) -> Node:
    """A layer's weights other than 0 before and after, and the centroids."""
    pair = [row for row in (before, after) if row]
    ends = [edges(row) for row in pair]
    most = max(max(row["counts"]) for row in pair)
    centroids = after.get("centroids", [])
    told = f"{sum(after['counts']):,} weights other than 0 and {after['zeros']:,} zeros"
    told += f", {len(centroids)} centroids" if centroids else ""
    low, high = min(e[0] for e in ends), max(e[-1] for e in ends)
    title = f"Weights of {name}"
    chart = Chart(title, told, Axis(name, low, high), Axis("weights", 0, most), f"w{number}", 150)
    if before:
        chart.steps(edges(before), before["counts"], 5, wash=True)
    chart.steps(edges(after), after["counts"], 0)
    chart.ticks_below(centroids, 1)
    return chart.done()


def scales(report: Json) -> Node | None:
    """|gamma| of all batch norms, before and after."""
    stages = report["stages"]
    pair = [(n, stages[n]["distributions"]["scales"]) for n in ("dense", "encode")]
    pair = [(n, row) for n, row in pair if row]
    if not pair:
        return None
    ends = [edges(row) for _, row in pair]
    most = max(max(row["counts"]) for _, row in pair)
    told = "; ".join(f"{n}: {sum(r['counts']) + r['zeros']:,} scales" for n, r in pair)
    chart = Chart(
        "Scales of batch norms",
        f"{told}, {pair[-1][1]['zeros']:,} of them 0 at the end",
        Axis("scale of a channel, |γ|", min(0.0, *(e[0] for e in ends)), max(e[-1] for e in ends)),
        Axis("channels", 0, most),
        "scales",
    )
    for (name, row), color in zip(pair, (5, 0), strict=False):
        chart.steps(edges(row), row["counts"], color, wash=color == 5)
        chart.named(color, "before" if name == "dense" else "after")
    return chart.done()


def latencies(report: Json) -> Node:
    """Times of single calls, outliers included."""
    found = report["latency"]["histogram"]
    counts = found["counts"]
    bins = max(len(row) for row in counts.values())
    ends = np.geomspace(found["low"], found["high"], bins + 1).tolist()
    ms = report["latency"]["ms"]
    told = "; ".join(
        f"{n}: median {ms[n]['median']:.3f} ms, 5 to 95 % {ms[n]['p5']:.3f} to {ms[n]['p95']:.3f}"
        for n in counts
    )
    chart = Chart(
        "Time of single calls",
        told,
        Axis("ms, logarithmic", ends[0], ends[-1], log=True),
        Axis("calls", 0, max(max(row) for row in counts.values())),
        "latencies",
    )
    for color, (name, row) in enumerate(counts.items()):
        chart.steps(ends, row, color, wash=True)
        chart.named(color, name)
    return chart.done()


def latency_against_macs(report: Json) -> Node:
    """Each ONNX file's median, with where 5 to 95 % of its calls lie, over its MACs."""
    stages, ms = report["stages"], report["latency"]["ms"]
    macs = {name: stages["dense" if name == "dense" else "encode"]["macs"] for name in ms}
    high = max(row["p95"] for row in ms.values())
    told = "; ".join(f"{n}: {macs[n]:,} MACs, {row['median']:.3f} ms" for n, row in ms.items())
    chart = Chart(
        "Latency against multiply-adds",
        told,
        Axis("multiply-adds (MACs) of a dense runtime", 0, 1.08 * max(*macs.values(), 1)),
        Axis("ms", 0, high),
        "macs",
    )
    for color, (name, row) in enumerate(ms.items()):
        x = macs[name]
        chart.spread(x, row["p5"], row["p95"], color)
        chart.dots([(x, row["median"])], color, [f"{name}: {row['median']:.3f} ms"])
        chart.named(color, f"{name} {row['median']:.3f} ms")
    return chart.done()


def layer_parts(parts: Json, most: int) -> Node:
    """A small stacked bar of a layer's bytes, for a cell of a table."""
    svg = Node("svg", {"class": "inline", "viewBox": "0 0 100 8", "aria-hidden": "true"})
    svg.set("preserveAspectRatio", "none")
    ends = list(itertools.accumulate((parts[part] for part in list(PARTS)[:5]), initial=0))
    for color, (start, end) in enumerate(itertools.pairwise(ends)):
        if end > start:
            place = {"x": f"{100 * start / most:.2f}", "width": f"{100 * (end - start) / most:.2f}"}
            svg.append(Node("rect", {**place, "y": "0", "height": "8", "class": f"f{color}"}))
    return svg
