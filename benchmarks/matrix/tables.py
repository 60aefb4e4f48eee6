"""The matrix as tables: a summary of all networks, and every network."""

from typing import Any

from compressor.benchmarks.matrix.cells import FILES

Json = dict[str, Any]
COLUMNS = (".onnx", ".pt", ".safetensors", "session", "module", *FILES)
TOLERANCE = {"fp16": 0.02, "INT8": 0.5}
"""Of the largest answer, else 1e-4; INT8 is another network, which must only be near."""


def holds(column: str, value: Any) -> bool:
    return not isinstance(value, str) and value <= TOLERANCE.get(column, 1e-4)


def failure(row: Json) -> str | None:
    """Why a row has no outputs at all."""
    told: str | None = row.get("saved") or row.get("run")
    return told


def summary(known: Json) -> str:
    """A row for each form of input: of how many networks each output is right."""
    forms = list(dict.fromkeys(form for rows in known.values() for form in rows))
    lines = [_line(["from", *(f"`{column}`" for column in COLUMNS)]), _rule(1 + len(COLUMNS))]
    for form in forms:
        rows = {name: rows[form] for name, rows in known.items() if form in rows}
        counts = []
        for column in COLUMNS:
            made = [name for name in rows if any(column in row for row in known[name].values())]
            tried = [rows[name].get(column, failure(rows[name])) for name in made]
            right = sum(holds(column, value) for value in tried if value is not None)
            counts.append(f"{right} of {len(tried)}" if tried else "-")
        lines.append(_line([form, *counts]))
    return "\n".join(lines) + _listed(failures(known))


def failures(known: Json) -> list[str]:
    """Every cell that is not right, in words, those that fail alike in one line."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, forms in known.items():
        for form, row in forms.items():
            whole = failure(row)
            wrong = {c: row[c] for c in COLUMNS if c in row and not holds(c, row[c])}
            for column, told in ({"": whole} if whole else wrong).items():
                what = f"{name}, `{column}`" if column else name
                found.setdefault((what, str(told)), []).append(form)
    return [f"{what} from {', '.join(forms)}: {told}" for (what, told), forms in found.items()]


def table(known: Json) -> str:
    """A row for each network in each form: the largest difference of each output."""
    head = ["network", "from", *(f"`{column}`" for column in COLUMNS)]
    lines = [_line(head), _rule(len(head))]
    for name, forms in known.items():
        for form, row in forms.items():
            cells = ["no" if failure(row) else _shown(c, row.get(c)) for c in COLUMNS]
            lines.append(_line([name, form, *cells]))
    return "\n".join(lines) + _listed(failures(known))


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if not holds(column, value):
        return "no"
    return "same" if value == 0 else f"{value:.0e}"


def _listed(texts: list[str]) -> str:
    return "".join(f"\n{'' if n else chr(10)}* {text}" for n, text in enumerate(texts))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return _line(["---"] * count)
