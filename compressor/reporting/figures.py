"""Figures in the one style of this tool; the same content gives the same file."""

from pathlib import Path
from typing import Any

from compressor.errors import UsageError


def new() -> tuple[Any, Any]:
    """An empty matplotlib figure and its axes, drawn without a screen.

    Raises :class:`UsageError` where matplotlib (the extra ``plots``) is not installed.
    """
    try:
        from matplotlib import figure as drawing
    except ImportError:
        raise UsageError("drawing needs matplotlib: pip install 'compressor[plots]'") from None
    figure = drawing.Figure(figsize=(8, 5), layout="constrained")
    return figure, figure.subplots()


def save(figure: Any, path: Path) -> None:
    """Write the figure; ``path`` ends in .svg, .png or .pdf."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "compressor"}):  # else the ids in an SVG file are random
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
