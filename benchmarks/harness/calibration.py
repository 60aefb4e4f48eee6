"""Can the harness be believed? A/A trials, and a slow-down of 5 % that was planted.

    python -m compressor.benchmarks.harness.calibration FILE.onnx [--trials 100] [--planted 20]

*A/A*: the file against itself, ``--trials`` times over; the interval of the ratio must hold 1 in 95
of 100. *Planted*: against itself with 5 % of its own time spent in addition after each call, by
waiting on the clock; the interval must lie on the right side of 1. On a machine with other work the
result says so: ``loads`` is the load average before each trial.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.benchmarks.environment import environment, hardware_state
from compressor.benchmarks.harness.rounds import Cell, Limits, Participant, measure, paired
from compressor.benchmarks.harness.subjects import subjects

Json = dict[str, Any]
RESULT = Path(__file__).parents[1] / "results" / "bench-calibration.json"
PLANTED = 0.05


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.harness.calibration")
    parser.add_argument("file", type=Path)
    parser.add_argument("--trials", type=int, default=100, help="A/A trials")
    parser.add_argument("--planted", type=int, default=20, help="trials with a slow-down")
    parser.add_argument("--seconds", type=float, default=30.0, help="limit of one trial")
    parser.add_argument("--runtime", default="ort")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    arguments = parser.parse_args(words)
    described = {**environment(), "state": hardware_state()}
    alike = [trial(arguments, seed, 0.0) for seed in range(arguments.trials)]
    slower = [trial(arguments, seed, PLANTED) for seed in range(arguments.planted)]
    result = {
        "benchmark": "harness/calibration",
        "file": arguments.file.name,
        "runtime": arguments.runtime,
        "alike": {"trials": len(alike), "hold_one": sum(row["holds_one"] for row in alike)},
        "planted": {
            "slow_down": PLANTED,
            "trials": len(slower),
            "detected": sum(row["high"] < 1 for row in slower),
            "hold_it": sum(row["low"] <= 1 / (1 + PLANTED) <= row["high"] for row in slower),
        },
        "environment": described,
        "rows": {"alike": alike, "planted": slower},
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("alike", "planted")}))


def trial(arguments: argparse.Namespace, seed: int, slow_down: float) -> Json:
    """One comparison of the file with itself; ``slow_down`` is a part of the second's time."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    pair = [
        Participant(one, arguments.runtime, "cpu", {(1, 1): Cell(one, arguments.runtime, 1, 1)})
        for one in subjects([arguments.file, arguments.file])
    ]
    pair[1].slow_down = slow_down
    measure(pair, [(1, 1)], Limits(seconds=arguments.seconds), seed)
    first, second = (each.cells[1, 1] for each in pair)
    found = paired(first, second)
    if found is None:
        raise SystemExit(first.failure or second.failure or "nothing was measured")
    row = {
        **found.row(),
        "holds_one": found.holds_one,
        "launches": len(first.rounds()),
        "load": load,
    }
    print(
        f"{seed:4} {slow_down:.2f} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
