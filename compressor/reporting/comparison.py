"""Runs side by side: one table, and what bytes and time buy in accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.reporting import page
from compressor.reporting.axes import Axis, percent
from compressor.reporting.grids import DASH, Grid
from compressor.reporting.headline import points
from compressor.reporting.intervals import Interval, wilson
from compressor.reporting.markdown import escaped, table
from compressor.reporting.markup import Node, clean, node
from compressor.reporting.svg import Chart
from compressor.reporting.tables import percent as shown

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What is compared of a run."""

    network: str
    data: str
    cpu: str
    size: int
    smaller: float
    accuracy: float | None
    spread: Interval | None
    change: float | None
    ms: float
    ms_spread: Interval
    faster: float
    macs: int

    @classmethod
    def of(cls, report: Json) -> "Run":
        encode, ms = report["stages"]["encode"], report["latency"]["ms"]
        data, accuracy, change = report["data"], encode["accuracy"], encode["change"]
        low, high = ms["compressed"]["median_interval"]
        return cls(
            network=report["network"]["arch"],
            data=f"{data['name']}, {data['test_images']:,} test images" if data else DASH,
            cpu=report["environment"]["cpu"],
            size=encode["bytes"],
            smaller=report["network"]["fp32_bytes"] / encode["bytes"],
            accuracy=accuracy,
            spread=None if accuracy is None else wilson(accuracy, data["test_images"]),
            change=change["difference"] if change else None,
            ms=ms["compressed"]["median"],
            ms_spread=(float(low), float(high)),
            faster=ms["dense"]["median"] / ms["compressed"]["median"],
            macs=encode["macs"],
        )


def labels(paths: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with as many parents as tell it from the others."""
    folders = [path.parent if path.suffix == ".json" else path for path in paths]
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]) or str(path) for p, path in zip(parts, paths, strict=True)]


def frontier(rows: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, accuracy) rows that none beats in both, by cost."""
    found: list[int] = []
    for at in sorted(range(len(rows)), key=lambda n: (rows[n][0], -rows[n][1])):
        if not found or rows[at][1] > rows[found[-1]][1]:
            found.append(at)
    return found


@dataclass(frozen=True)
class Comparison:
    """Runs under their names."""

    names: Sequence[str]
    runs: Sequence[Run]

    def grid(self) -> Grid:
        rows = [
            (
                name,
                run.network,
                f"{run.size:,}",
                f"{run.smaller:.1f}x",
                shown(run.accuracy),
                f"{100 * run.spread[0]:.2f} to {100 * run.spread[1]:.2f} %" if run.spread else DASH,
                DASH if run.change is None else points(run.change),
                f"{run.ms:.3f}",
                f"{run.faster:.2f}x",
                f"{run.macs:,}",
            )
            for name, run in zip(self.names, self.runs, strict=True)
        ]
        headings = ("run", "network", "bytes", "smaller", "accuracy", "95 % interval (Wilson)")
        more = ("points against dense", "median ms", "faster than dense", "MACs")
        return Grid("Runs side by side", headings + more, rows)

    def notes(self) -> list[str]:
        """What a reader must know before comparing."""
        notes = []
        data = sorted({run.data for run in self.runs if run.accuracy is not None})
        if len(data) > 1:
            notes.append(f"Accuracies are of different data ({'; '.join(data)}): do not compare.")
        cpus = sorted({run.cpu for run in self.runs})
        if len(cpus) > 1:
            notes.append(f"Times are of different machines ({'; '.join(cpus)}): do not compare.")
        else:
            notes.append("Times were taken in separate runs, so the machine may have been in "
                         "different states; 'faster' is against each run's own dense network, "
                         "in turns.")  # fmt: skip
        blind = [n for n, r in zip(self.names, self.runs, strict=True) if r.accuracy is None]
        if blind:
            notes.append(f"Accuracy was not measured, so not drawn: {', '.join(blind)}.")
        return notes

    def html(self) -> bytes:
        plots = (
            (self._pareto("bytes"), "Line: the runs that none beats in both bytes and accuracy."),
            (self._pareto("ms"), "Line: the runs that none beats in both time and accuracy."),
        )
        return page.document(
            "Runs side by side",
            node("h1", "Runs side by side"),
            *(node("p", note, class_="soft") for note in self.notes()),
            page.figures(*plots),
            page.table(self.grid()),
        )

    def markdown(self) -> bytes:
        notes = "\n\n".join(escaped(note) for note in self.notes())
        return clean(f"# Runs side by side\n\n{table(self.grid())}\n\n{notes}\n").encode()

    def _pareto(self, cost: str) -> Node | None:
        """Accuracy over ``bytes`` or ``ms``; None where no accuracy was measured."""
        rows = [
            (name, float(run.size if cost == "bytes" else run.ms), run.accuracy, run)
            for name, run in zip(self.names, self.runs, strict=True)
            if run.accuracy is not None
        ]
        if not rows:
            return None
        where = [(at, accuracy) for _, at, accuracy, _ in rows]
        best = [where[n] for n in frontier(where)]
        low = min(run.spread[0] if run.spread else a for _, _, a, run in rows)
        high = max(run.spread[1] if run.spread else a for _, _, a, run in rows)
        costs = [at for at, _ in where]
        unit = "bytes of the artifact" if cost == "bytes" else "median ms"
        told = "; ".join(f"{name}: {at:,.6g} {cost}, {percent(a)}" for name, at, a, _ in rows)
        chart = Chart(
            f"Accuracy against {unit}",
            told,
            Axis(f"{unit}, logarithmic", 0.85 * min(costs), 1.2 * max(costs), log=True),
            Axis("test accuracy", low, high, text=percent),
            f"pareto-{cost}",
            height=260,
        )
        chart.curve(best, 5)
        for color, (name, at, accuracy, run) in enumerate(rows):
            if run.spread:
                chart.spread(at, *run.spread, color)
            chart.dots([(at, accuracy)], color, [f"{name}: {percent(accuracy)}"])
            chart.named(color, name)
        return chart.done()
