"""What the removal of channels did, for a terminal."""

from typing import Any

from rich.table import Table

from compressor.reporting.console import table_of

Json = dict[str, Any]


def channel_table(stage: Json) -> Table:
    """One row per group of channels that stand or fall together, by its first layer."""
    table = table_of(("channels made by",), ("and layers", "before", "after", "removed"))
    for row in stage["groups"]:
        others = len(row["layers"]) - 1
        gone = 1 - row["after"] / row["before"]
        table.add_row(
            row["group"],
            f"{others}" if others else "-",
            f"{row['before']:,}",
            f"{row['after']:,}",
            f"{100 * gone:.0f} %" if gone else "-",
        )
    return table


def channel_notes(report: Json, *, verbose: bool) -> list[str]:
    """The proof, whose ``forward`` the network has, and what could not be removed."""
    stage, dense = report["stages"]["channels"], report["stages"]["dense"]
    notes = [
        f"{stage['macs']:,} of {dense['macs']:,} MACs are left "
        f"({dense['macs'] / max(1, stage['macs']):.2f}x fewer); proved in "
        f"{stage['proof']['dtype']}: the small network computes what the masked one does, within "
        f"{stage['proof']['difference']:.1e}"
    ]
    if stage["rewritten"]:
        notes.append(
            "the network's forward is its exported graph with the sizes solved anew, since its own "
            f"class does not run with fewer channels ({stage['why_rewritten'] or 'earlier cut'})"
        )
    stuck = [
        f"  {row['layer']}: {row['channels']} of {row['of']} channels, by {row['reason']}"
        for row in stage["frozen"]
    ]
    if stuck and not verbose and len(stuck) > _FEW:
        stuck = [*stuck[:_FEW], f"  and {len(stuck) - _FEW} more (-v)"]
    return notes + (["could not be removed:", *stuck] if stuck else [])


_FEW = 3
