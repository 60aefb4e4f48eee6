"""What a recipe would do to each layer, for a terminal (``--dry-run``)."""

from typing import Any

from rich.table import Table

from compressor.reporting.console import table_of

Row = dict[str, Any]


def plan_table(rows: list[Row]) -> Table:
    """The rows of ``preflight.check``, before retraining."""
    figures = ("shape", "weights", "channels", "threshold", "sparsity", "bits")
    table = table_of(("layer",), figures)
    for row in rows:
        table.add_row(
            row["layer"],
            "x".join(map(str, row["shape"])),
            f"{row['weights']:,}",
            "{} -> {}".format(*row["channels"]) if "channels" in row else "-",
            f"{row['threshold']:.4f}" if "threshold" in row else "-",
            f"{100 * row['sparsity']:.2f} %" if "sparsity" in row else "-",
            str(row.get("bits", "-")),
        )
    return table
