"""A report as Markdown, for a pull request."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from compressor.reporting import grids
from compressor.reporting.grids import Grid
from compressor.reporting.headline import headline
from compressor.reporting.markup import clean
from compressor.reporting.recipes import toml

Json = dict[str, Any]
MAX_LAYERS = 64


def text(report: Json) -> bytes:
    """The whole ``report.md``; of very many layers, those of most bytes."""
    network = report["network"]
    layers, left_out = largest(grids.layers(report), MAX_LAYERS)
    parts = [
        f"# {escaped(network['name'])}, compressed",
        f"{escaped(network['arch'])}, {network['fp32_bytes'] // 4:,} parameters; "
        f"{escaped(report['tool'])}",
        *(
            f"- **{each.value} {each.title}** ({each.interval}). {escaped(each.note)}".rstrip()
            for each in headline(report)
        ),
        *(f"- **missed**: {escaped(item)}" for item in report["missed"]),
    ]
    # A list's items stand under each other, all else is set off by an empty line.
    body = "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:])
    tried = grids.trials(report)
    if tried is not None:
        tried = tried._replace(caption=f"{tried.caption}: {escaped(grids.asked(report))}")
    tables = [grids.stages(report), *filter(None, [tried]), grids.latency(report)]
    tables += [grids.files(report), layers]
    body += "".join(f"\n\n## {grid.caption}\n\n{table(grid)}" for grid in tables)
    body += f"\n\n{left_out} smaller layers are in report.json." if left_out else ""
    body += "\n\n## Not measured\n\n"
    body += "\n".join(f"- {escaped(item)}" for item in report["not_measured"])
    recipe = toml(report)
    fence = "`" * (max((len(run) for run in re.findall("`+", recipe)), default=2) + 3)
    folded = f"\n\n<details><summary>Recipe</summary>\n\n{fence}toml\n{recipe}{fence}\n\n</details>"
    body += folded + f"\n\n## Environment\n\n{table(grids.environment(report))}\n"
    return clean(body).encode()


def largest(layers: Grid, most: int) -> tuple[Grid, int]:
    """The rows of most bytes, in their order, and how many were left out."""
    at = layers.headings.index("bytes")
    by_size = sorted(layers.rows, key=lambda row: -int(row[at].replace(",", "")))
    kept = {id(row) for row in by_size[:most]}
    rows = [row for row in layers.rows if id(row) in kept]
    return layers._replace(rows=rows), len(layers.rows) - len(rows)


def table(grid: Grid) -> str:
    """A Markdown table: names to the left, figures to the right."""
    first, *rows = ([escaped(cell) for cell in cells] for cells in (grid.headings, *grid.rows))
    return joined(first, rows)


def joined(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown already; the first ``left`` columns stand to the left."""
    rule = [":--"] * left + ["--:"] * (len(headings) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def escaped(text: str) -> str:
    """``text`` that Markdown shows as it is: no tag, no link, no new cell or line."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split())).replace("\\<", "&lt;")
