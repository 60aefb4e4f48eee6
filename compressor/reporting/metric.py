"""What a run's network was judged by, and how its figures are shown: accuracy, or a task's own."""

from typing import Any

Json = dict[str, Any]


def name(report: Json) -> str:
    """What the figure called ``accuracy`` in a report is: accuracy, unless the task says else."""
    return str(report.get("task", {}).get("metric", "accuracy"))


def counted(report: Json) -> bool:
    """Whether it is a share of right answers, of which there are intervals and lost images."""
    return name(report) == "accuracy"


def shown(report: Json, value: float | None) -> str:
    """A figure for people; "not measured" where there is none."""
    if value is None:
        return "not measured"
    return f"{100 * value:.2f} %" if _percent(report) else f"{value:.5g}"


def changed(report: Json, value: float) -> str:
    """A change of the figure, with its sign: in percentage points where it is a fraction."""
    text = f"{100 * value:+.2f}" if _percent(report) else f"{value:+.3g}"
    text = text.replace("-", "−")
    return text[1:] if not any(digit in text for digit in "123456789") else text


def _percent(report: Json) -> bool:
    return bool(report.get("task", {}).get("percent", True))
