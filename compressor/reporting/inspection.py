"""What an artifact holds, tensor by tensor, for ``compress inspect``."""

from typing import Any

from rich.table import Table

from compressor.artifact import Artifact
from compressor.reporting.console import table_of

PARTS = ("values", "gaps", "tables", "codebook", "other")


def contents(artifact: Artifact) -> dict[str, Any]:
    """All that ``inspect`` shows, as plain data; sizes in bytes."""
    tensors = [
        {
            "name": entry.name,
            "shape": list(entry.shape),
            "dtype": entry.dtype,
            "mode": entry.mode.name.lower(),
            "weights": entry.elements,
            "nonzero": entry.nonzero,
            "sparsity": entry.sparsity,
            "bits_per_weight": entry.bits_per_weight,
            "centroids": entry.codebook_size,
            "gap_width": entry.gap_width,
            "fillers": entry.fillers,
            "bytes": entry.bytes,
            "parts": entry.parts._asdict(),
        }
        for entry in artifact.entries
    ]
    payloads = sum(entry.bytes for entry in artifact.entries)
    return {
        "metadata": artifact.metadata,
        "tensors": tensors,
        "overhead_bytes": artifact.size_without_graph - payloads,
        "weights_only_bytes": artifact.size_without_graph,
        "graph_bytes": artifact.size - artifact.size_without_graph,
        "bytes": artifact.size,
    }


def parts_by_layer(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per tensor, by its layer's name: how it is written, and bytes by part."""
    return [
        {"layer": row["name"].removesuffix(".weight"), "mode": row["mode"], "parts": row["parts"]}
        for row in found["tensors"]
    ]


def breakdown(found: dict[str, Any]) -> dict[str, int]:
    """Where the bytes of the file go: tensors by part, directory, graph; they add up to it."""
    return {
        **{part: sum(row["parts"][part] for row in found["tensors"]) for part in PARTS},
        "directory": found["overhead_bytes"],
        "graph": found["graph_bytes"],
    }


def contents_table(found: dict[str, Any]) -> Table:
    """The same for a terminal: one row per tensor, then where the rest of the file goes."""
    figures = ("shape", "mode", "sparsity", "k", "gap", "bits/w", *PARTS, "bytes")
    table = table_of(("tensor",), figures)
    for row in found["tensors"]:
        table.add_row(
            row["name"],
            "x".join(map(str, row["shape"])) or "scalar",
            row["mode"],
            f"{100 * row['sparsity']:.2f} %",
            _or_dash(row["centroids"]),
            _or_dash(row["gap_width"]),
            f"{row['bits_per_weight']:.2f}",
            *(f"{row['parts'][part]:,}" for part in PARTS),
            f"{row['bytes']:,}",
        )
    table.add_section()
    blanks = [""] * (5 + 1 + len(PARTS))
    for label, key in (
        ("header and directory", "overhead_bytes"),
        ("graph", "graph_bytes"),
        ("file", "bytes"),
        ("file without graph", "weights_only_bytes"),
    ):
        table.add_row(label, *blanks, f"{found[key]:,}")
    return table


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
