"""What was measured as rows of the result: a row a cell, compared with the first network's."""

from typing import Any

import numpy as np

from compressor.benchmarks.environment import hardware_state
from compressor.benchmarks.harness import noise
from compressor.benchmarks.harness.rounds import Cell, Limits, Outcome, Participant, paired
from compressor.reporting import resampling

Json = dict[str, Any]


def fill(
    result: Json, outcome: Outcome, limits: Limits, before: tuple[float, float] | None
) -> None:
    """Fill in the cells and the warnings; ``before`` is ``noise.steal()`` as it all began."""
    after = noise.steal()
    stolen = None
    if before is not None and after is not None and after[1] > before[1]:
        stolen = (after[0] - before[0]) / (after[1] - before[1])
    first = outcome.participants[0].cells
    label = next(iter(first.values())).subject.label
    baselines = {
        (cell.runtime, cell.batch, cell.threads): cell
        for cell in outcome.cells()
        if cell.subject.label == label
    }
    widths: dict[str, float] = {}
    for participant in outcome.participants:
        for cell in participant.cells.values():
            base = baselines[(cell.runtime, cell.batch, cell.threads)]
            row = _cell_row(cell, participant, None if base is cell else base)
            result["cells"].append(row)
            name = f"{cell.subject.label}, {cell.runtime}"
            if "median_ms" in row:
                widths[name] = _width(row["median_ms"])
            if row.get("faster") is not None:
                widths[f"{name}, ratio"] = _width(row["faster"])
    result["measured_seconds"] = sum(outcome.seconds.values())
    result["environment"]["stolen"] = stolen
    result["environment"]["state_after"] = hardware_state()
    load = result["environment"]["load_average"]
    result["warnings"] = noise.warnings(
        outcome.cells(), limits, load[0] if load else None, stolen, widths
    )
    result["warnings"] += [
        f"{row['subject']} in {row['runtime']} gives outputs that are NaN or infinite"
        for row in result["cells"]
        if row.get("finite") is False
    ]


def _width(row: Json) -> float:
    return resampling.Interval(row["value"], row["low"], row["high"]).width


def _cell_row(cell: Cell, participant: Participant, base: Cell | None) -> Json:
    row: Json = {
        "subject": cell.subject.label,
        "runtime": cell.runtime,
        "batch": cell.batch,
        "threads": cell.threads,
        "failure": cell.failure,
    }
    rounds = cell.rounds()
    if not rounds:
        row["failure"] = cell.failure or "nothing was measured"
        return row
    calls = cell.calls()
    bursts = [burst for launch in cell.launches for burst in launch]
    middle = resampling.median(rounds)
    p5, p95 = np.percentile(calls, [5, 95])
    count = sum(len(burst["ns"]) for burst in bursts)
    peaks = [burst["peak_bytes"] for burst in bursts if burst["peak_bytes"] is not None]
    ratio = paired(base, cell) if base is not None and base.rounds() else None
    return row | {
        "median_ms": middle.row(),
        "p5_ms": float(p5),
        "p95_ms": float(p95),
        "minimum_ms": float(calls.min()),
        "cpu_ms": sum(burst["cpu_ns"] for burst in bursts) / 1e6 / count,
        "images_per_second": 1e3 * cell.batch / middle.value,
        "faster": None if ratio is None else ratio.row(),
        "conclusion": None if ratio is None else conclusion(ratio),
        "load_ms": [each["load_ms"] for each in participant.opened],
        "import_ms": [each["import_ms"] for each in participant.opened],
        "peak_bytes": max(peaks, default=None),
        "imports_bytes": participant.opened[0]["imports_bytes"] if participant.opened else None,
        "finite": all(each["finite"] for each in cell.prepared),
        "launches": len(rounds),
        "rounds": [len(each) for each in rounds],
        "calls": count,
        "warmup_calls": [each["warmup_calls"] for each in cell.prepared],
        "steady": all(each["steady"] for each in cell.prepared),
        "waited": noise.waiting(cell),
        "preempted": sum(burst["preempted"] for burst in bursts),
        "round_ms": [[round(float(value), 6) for value in each] for each in rounds],
        "call_ms": [round(float(value), 4) for value in calls],
    }


def conclusion(ratio: resampling.Interval) -> str:
    """In words: an interval that holds 1 shows nothing."""
    if ratio.holds_one:
        return "no difference shown"
    return "faster" if ratio.value > 1 else "slower"
