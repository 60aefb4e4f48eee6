"""The tables of a report as plain texts, which the page and the Markdown write in their own way."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from compressor.reporting import metric
from compressor.reporting.intervals import wilson
from compressor.reporting.plots import stages_of
from compressor.reporting.tables import difference_of, onnx_files, trial_rows

Json = dict[str, Any]
DASH = "-"


class Grid(NamedTuple):
    """``rows`` have a cell for each of ``headings``; the first is the row's own name."""

    caption: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def stages(report: Json) -> Grid:
    """What each stage left, with Wilson's interval of its accuracy."""
    fp32, images = report["network"]["fp32_bytes"], (report["data"] or {}).get("test_images", 0)
    rows = []
    for label, stage in stages_of(report):
        figures = (
            f"{stage['bytes']:,}",
            f"{fp32 / stage['bytes']:.1f}x",
            f"{100 * stage['sparsity']:.2f} %",
            f"{stage['bits_per_weight']:.2f}",
            metric.shown(report, stage["accuracy"]),
            _interval(stage["accuracy"], images if metric.counted(report) else 0),
            f"{stage['nonzero']:,}",
            f"{stage['macs']:,}",
            f"{stage['nonzero_macs']:,}",
            f"{stage['seconds']:.1f}",
        )
        rows.append((label, *figures))
    headings = (
        "stage",
        "bytes",
        "smaller",
        "zeros",
        "bits per weight",
        f"test {metric.name(report)}",
    )
    more = ("95 % interval", "parameters not 0", "MACs", "MACs that meet no 0", "seconds")
    return Grid("What each stage left", headings + more, rows)


def _interval(share: float | None, count: int) -> str:
    spread = None if share is None else wilson(share, count)
    return DASH if spread is None else f"{100 * spread[0]:.2f} to {100 * spread[1]:.2f} %"


def layers(report: Json) -> Grid:
    """Every layer of the artifact."""
    centroids = {
        row["layer"]: row["centroids"]
        for stage in report["stages"].values()
        for row in stage.get("layers", [])
        if "centroids" in row
    }
    rows = [
        (
            row["layer"],
            "x".join(map(str, row["shape"])),
            f"{row['nonzero']:,}",
            f"{100 * row['sparsity']:.2f} %",
            str(centroids.get(row["layer"], DASH)),
            row.get("mode", DASH),
            f"{row['bytes']:,}",
            f"{row['ratio']:.1f}x" if row["ratio"] else DASH,
        )
        for row in report["stages"]["encode"]["layers"]
    ]
    headings = ("layer", "shape", "not 0", "zeros", "centroids", "mode", "bytes", "smaller")
    return Grid("Layers in the artifact", headings, rows)


def files(report: Json) -> Grid:
    """The files of the run; of those that were asked for besides, what they compute."""
    named, made, fp32 = report["files"], report["stages"], report["network"]["fp32_bytes"]
    rows_of = {"artifact": made["encode"], "onnx": made["export"]}
    rows_of |= {key: made["export"][key] for key in named if key in made["export"]}
    called = {**named, "onnx": onnx_files(named)}
    rows = [
        (
            *(called[key], key, f"{row['bytes']:,}", f"{fp32 / row['bytes']:.1f}x"),
            DASH if row.get("accuracy") is None else f"{100 * row['accuracy']:.2f} %",
            difference_of(row) if "tolerance" in row else DASH,
        )
        for key, row in rows_of.items()
    ]
    headings = ("file", "what it is", "bytes", "smaller", "accuracy", "outputs differ by")
    return Grid("Files", headings, rows)


def latency(report: Json) -> Grid:
    """Times of the ONNX files."""
    rows = []
    dense = report["latency"]["ms"]["dense"]["median"]
    for name, ms in report["latency"]["ms"].items():
        low, high = ms["faster_interval"]
        first, last = ms["median_interval"]
        figures = (
            f"{ms['median']:.3f}",
            f"{first:.3f} to {last:.3f}",
            *(f"{ms[key]:.3f}" for key in ("p5", "p95", "minimum")),
            f"{dense / ms['median']:.2f}x",
            f"{low:.2f} to {high:.2f}" if name != "dense" else DASH,
        )
        rows.append((name, *figures))
    headings = ("ONNX file", "median ms", "95 % interval", "p5", "p95", "minimum", "faster")
    return Grid("Latency", (*headings, "95 % interval of the ratio"), rows)


def trials(report: Json) -> Grid | None:
    """What was tried for a target; None where there was none."""
    if "targets" not in report:
        return None
    rows = [(str(number), *row) for number, row in enumerate(trial_rows(report), 1)]
    headings = ("trial", "how", "meets it", "bytes", "smaller", "zeros", "bits per weight")
    return Grid("Tried for the target", (*headings, "points lost"), rows)


def asked(report: Json) -> str:
    """The targets in words."""
    targets = report["targets"]
    found = []
    if targets["most_bytes"] is not None:
        found.append(f"an artifact of at most {targets['most_bytes']:,} bytes")
    if targets["max_drop"] is not None:
        drop = targets["max_drop"]
        points = "point" if drop == 1 else "points"
        found.append(f"at most {drop:g} {points} lost on validation images")
    return f"Asked for: {' and '.join(found)}"


def environment(report: Json) -> Grid:
    """Where the figures were taken."""
    rows = []
    for key, value in report["environment"].items():
        if isinstance(value, dict):
            text = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            text = ", ".join(f"{item:.2f}" for item in value)
        elif key == "memory_bytes" and value is not None:
            text = f"{value / 2**30:.1f} GiB"
        else:
            text = DASH if value is None else str(value)
        rows.append((key.replace("_", " ").removesuffix(" bytes"), text))
    return Grid("Environment", ("what", "value"), [*rows, ("tool", report["tool"])])
