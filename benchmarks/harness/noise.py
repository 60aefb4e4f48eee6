"""Is the machine quiet enough to conclude? What is looked at, and what is said."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressor.benchmarks.harness.rounds import Cell, Limits

BUSY, STOLEN, WAITED, SPREAD = 0.3, 0.02, 0.05, 1.25


def steal() -> tuple[float, float] | None:
    """(ticks that a hypervisor gave to others, ticks in all) since the machine started."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    ticks = [float(each) for each in first]
    return ticks[7], sum(ticks)


def warnings(
    cells: Sequence[Cell],
    limits: Limits,
    load: float | None,
    stolen: float | None,
    widths: dict[str, float],
) -> list[str]:
    """Sentences, none where the machine was quiet. ``widths`` are those of all intervals."""
    found = []
    if load is not None and load > BUSY:
        found.append(f"other work was running: the load average was {load:.2f} before the start")
    if stolen is not None and stolen > STOLEN:
        found.append(f"the hypervisor gave {100 * stolen:.0f} % of the time to other machines")
    waited = [each for cell in cells if (each := waiting(cell)) is not None]
    if waited and max(waited) > WAITED:
        found.append(
            f"networks waited for a processor in up to {100 * max(waited):.0f} % of their time"
        )
    spread = max((p95_over_median(cell) for cell in cells if cell.rounds()), default=1.0)
    if spread > SPREAD:
        found.append(
            f"the slowest twentieth of the calls took {spread:.2f} times the median or more"
        )
    wide = {name: width for name, width in widths.items() if width > limits.width}
    if wide:
        worst = max(wide, key=lambda name: wide[name])
        found.append(
            f"{len(wide)} of {len(widths)} intervals are wider than the {100 * limits.width:g} % "
            f"asked for ({worst}: {100 * wide[worst]:.1f} %): repeat on a quieter machine, or "
            "allow more --seconds"
        )
    unsteady = [cell for cell in cells if any(not each["steady"] for each in cell.prepared)]
    if unsteady:
        found.append(
            f"{unsteady[0].subject.label} in {unsteady[0].runtime} was not steady when its warm-up "
            "ended"
        )
    return found


def waiting(cell: Cell) -> float | None:
    """The part of its time that a one-threaded network was ready and did not run."""
    bursts = [burst for launch in cell.launches for burst in launch]
    if cell.threads != 1 or not bursts or not hasattr(os, "getloadavg"):
        return None
    cpu, wall = (sum(burst[key] for burst in bursts) for key in ("cpu_ns", "wall_ns"))
    return max(0.0, 1 - float(cpu) / float(wall))


def p95_over_median(cell: Cell) -> float:
    calls = cell.calls()
    return float(np.percentile(calls, 95) / np.median(calls))
