"""A scan for people: what is most and least sensitive, and the curves as plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from compressor.errors import UsageError
from compressor.reporting.tables import percent, table_of, titled

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


def draw(found: Json, folder: Path) -> list[str]:
    """Write a plot for each kind, and one of the weights' histograms; returns the files' names.

    The same scan gives the same files. Raises :class:`UsageError` where matplotlib (the extra
    ``plots``) is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'compressor[plots]'") from None
    names = []
    for kind, (key, label) in AXES.items():
        curves = [curve for curve in found["curves"] if curve["kind"] == kind]
        if curves:
            names.append(f"{kind}.svg")
            _curves(curves, key, label, found["dense"]["accuracy"], folder / names[-1])
    names.append("histograms.svg")
    _histograms(found["histograms"], folder / names[-1])
    return names


def _curves(curves: Sequence[Json], key: str, label: str, dense: float, path: Path) -> None:
    figure, every = _grid(len(curves), sharey=True)
    for axes, curve in zip(every, curves, strict=False):
        points = sorted(curve["points"], key=lambda point: point[key])
        x = [point[key] for point in points]
        axes.plot(x, [100 * point["accuracy"] for point in points], marker="o", markersize=3)
        axes.axhline(100 * dense, color="0.7", linewidth=0.8, zorder=0)
        _title(axes, curve["unit"])
        if key == "bits":
            axes.invert_xaxis()
    figure.supxlabel(label, fontsize=9)
    figure.supylabel("accuracy, %", fontsize=9)
    _save(figure, path)


def _histograms(rows: Sequence[Json], path: Path) -> None:
    figure, every = _grid(len(rows), sharey=False)
    for axes, row in zip(every, rows, strict=False):
        axes.stairs(row["counts"], row["edges"], fill=True, alpha=0.6)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        _title(axes, row["layer"])
    figure.supxlabel("weight", fontsize=9)
    figure.supylabel("weights", fontsize=9)
    _save(figure, path)


def _title(axes: Any, unit: str) -> None:
    first, *others = unit.split("+")
    axes.set_title(f"{first} +{len(others)}" if others else first, fontsize=8)
    axes.tick_params(labelsize=7)


def _grid(count: int, *, sharey: bool) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 1.9 * rows + 0.6), layout="constrained")
    every = figure.subplots(rows, columns, sharey=sharey, squeeze=False).ravel()
    for axes in every[count:]:
        axes.set_visible(False)
    return figure, list(every)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "scan"}):
        figure.savefig(path, metadata={"Date": None})
