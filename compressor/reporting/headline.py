"""What a run comes to in three figures, each with how sure it is."""

from typing import Any, NamedTuple

from compressor.reporting import metric

Json = dict[str, Any]


class Figure(NamedTuple):
    """``value`` is what changed, ``interval`` where it may lie, ``note`` what it was taken from."""

    title: str
    value: str
    interval: str
    note: str


def headline(report: Json) -> list[Figure]:
    """Smaller, faster, accuracy: the artifact against the dense network."""
    return [_smaller(report), _faster(report["latency"]), _accuracy(report)]


def points(change: float) -> str:
    """A change of accuracy in percentage points, with its sign."""
    text = f"{100 * change:+.2f}".replace("-", "−")
    return "0.00" if text in ("+0.00", "−0.00") else text


def interval_of(low: float, high: float, places: int = 2) -> str:
    return f"{low:.{places}f} to {high:.{places}f}"


def _smaller(report: Json) -> Figure:
    dense, size = report["network"]["fp32_bytes"], report["stages"]["encode"]["bytes"]
    return Figure(
        "smaller",
        f"{dense / size:.1f}x",
        "exact: bytes on disk, the graph included",
        f"{dense:,} bytes of fp32 weights, {size:,} in the artifact",
    )


def _faster(latency: Json) -> Figure:
    dense, small = (latency["ms"][name] for name in ("dense", "compressed"))
    low, high = small["faster_interval"]
    verdict = "; no difference was measured" if low <= 1 <= high else ""
    return Figure(
        "faster",
        f"{dense['median'] / small['median']:.2f}x",
        f"95 % interval {interval_of(low, high)}{verdict}",
        f"{latency['runtime']}, batch {latency['batch']}, {latency['threads']} thread: median "
        f"{dense['median']:.3f} ms, then {small['median']:.3f} ms; bootstrap over "
        f"{latency['calls']} rounds in turns, of this run on this machine",
    )


def _metric(report: Json, change: Json) -> Figure:
    low, high = (metric.changed(report, value) for value in change["interval"])
    dense, after = (
        metric.shown(report, report["stages"][stage]["accuracy"]) for stage in ("dense", "encode")
    )
    return Figure(
        f"change of {metric.name(report)}",
        metric.changed(report, change["difference"]),
        f"95 % interval {low} to {high}",
        f"{dense}, then {after} on the same {change['images']:,} test samples: {change['lost']:,} "
        f"got worse, {change['won']:,} better (paired, normal)",
    )


def _accuracy(report: Json) -> Figure:
    change = report["stages"]["encode"]["change"]
    if change is None:
        return Figure("accuracy", "not measured", "no data set was given (--data)", "")
    if not metric.counted(report):
        return _metric(report, change)
    low, high = change["interval"]
    dense, after = (report["stages"][stage]["accuracy"] for stage in ("dense", "encode"))
    return Figure(
        "points of accuracy",
        points(change["difference"]),
        f"95 % interval {points(low)} to {points(high)}",
        f"{100 * dense:.2f} %, then {100 * after:.2f} % of the same {change['images']:,} test "
        f"images: {change['lost']:,} lost, {change['won']:,} won (paired, Bonett and Price 2012)",
    )
