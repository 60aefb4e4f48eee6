"""What a recipe would do to each layer, worked out without doing it (``--dry-run``)."""

from typing import Any

from rich.table import Table

from compressor.layers import compressible_layers
from compressor.network import Network
from compressor.pruning.thresholds import deviation, magnitude_mask
from compressor.recipe import Recipe
from compressor.reporting.tables import table_of

Row = dict[str, Any]


def plan(network: Network, recipe: Recipe) -> list[Row]:
    """A row per layer: weights, threshold, sparsity after pruning, bits. Changes nothing."""
    layers = compressible_layers(network.module)
    kinds = {name: layer.kind for name, layer in layers.items()}
    sensitivities = recipe.prune.rules.resolve(kinds) if recipe.prune else {}
    bits = recipe.share.rules.resolve(kinds) if recipe.share else {}
    rows: list[Row] = []
    for name, layer in layers.items():
        weight = layer.weight.cpu().numpy()
        row: Row = {"layer": name, "shape": list(weight.shape), "weights": weight.size}
        if name in sensitivities:
            threshold = sensitivities[name] * deviation(weight, name)
            mask = magnitude_mask(weight, threshold, name)
            row |= {"threshold": threshold, "sparsity": 1 - float(mask.mean())}
        if name in bits:
            row["bits"] = int(bits[name])
        rows.append(row)
    return rows


def plan_table(rows: list[Row]) -> Table:
    """The plan for a terminal."""
    figures = ("shape", "weights", "threshold", "sparsity", "bits")
    table = table_of(("layer",), figures)
    for row in rows:
        table.add_row(
            row["layer"],
            "x".join(map(str, row["shape"])),
            f"{row['weights']:,}",
            f"{row['threshold']:.4f}" if "threshold" in row else "-",
            f"{100 * row['sparsity']:.2f} %" if "sparsity" in row else "-",
            str(row.get("bits", "-")),
        )
    return table
