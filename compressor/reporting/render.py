"""A report for people, from the report as data alone: whoever has ``report.json`` has the rest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from compressor.errors import LoadError
from compressor.files import PAGES
from compressor.reporting import comparison, markdown, page

Json = dict[str, Any]
T = TypeVar("T")


def rendered(report: Json) -> dict[str, bytes]:
    """``report.html`` and ``report.md`` of a run, by name."""
    return dict(zip(PAGES, (page.html(report), markdown.text(report)), strict=True))


def again(report: Json, path: Path) -> dict[str, bytes]:
    """As :func:`rendered`, of a report that was read from ``path``; see :func:`_whole`."""
    return _whole(lambda: rendered(report), path)


def compared(reports: Sequence[tuple[Path, Json]]) -> dict[str, bytes]:
    """``comparison.html`` and ``comparison.md`` of runs that were read from files."""
    runs = [
        _whole(lambda r=report: comparison.Run.of(r), path)  # type: ignore[misc]
        for path, report in reports
    ]
    names = comparison.labels([path for path, _ in reports])
    found = comparison.Comparison(names, runs)
    return {"comparison.html": found.html(), "comparison.md": found.markdown()}


def _whole(make: Callable[[], T], path: Path) -> T:
    """What ``make`` gives; :class:`LoadError` where the report lacks what it needs, or has
    something else in its place (what a file says is nobody's defect here)."""
    try:
        return make()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise LoadError(
            f"{path} is not a whole report ({type(error).__name__}: {error}): repeat the run"
        ) from None
