"""The tables of docs/experiments.md, written from the committed results of the experiments.

    python -m compressor.benchmarks.experiments [PAGE]

Nothing is measured: each experiment is a command of its own, and the page names it.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from compressor.benchmarks import readme
from compressor.benchmarks.experiments import RESULTS, Json
from compressor.reporting.grids import Grid
from compressor.reporting.markdown import table
from compressor.reporting.tables import percent

PAGE = Path("docs/experiments.md")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.experiments")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    options = parser.parse_args(words)
    options.page.write_text(filled(options.page.read_text("utf-8")), "utf-8")
    print(f"wrote the tables of {options.page}")


def filled(text: str) -> str:
    """``text`` with each table that there is a result for."""
    for name, write in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            text = readme.filled(text, name, write(json.loads(path.read_text("utf-8"))))
    return text


def one_shot_iterative(result: Json) -> str:
    heads = ["pruned of", "sparsity", "epochs", "rounds", "accuracy", "points lost"]
    heads += ["torch's", "masks", "as fast", "sparsest and fullest layer"]
    scopes = {"layer": "each layer", "global": "all layers together"}
    rows = []
    for row in result["rows"]:
        least, most = min(row["layers"].values()), max(row["layers"].values())
        equal = "equal" if row["masks_equal"] else "differ"
        rows.append(
            [
                *(
                    scopes[row["scope"]],
                    f"{100 * row['sparsity']:.0f} %",
                    row["epochs"],
                    row["rounds"],
                ),
                *(percent(row["accuracy"]), f"{row['drop_points']:.2f}"),
                *(percent(row["torch_accuracy"]), equal, f"{row['speedup']:.2f}x"),
                f"{100 * most:.1f} %, {100 * least:.1f} %",
            ]
        )
    return _table(heads, rows)


def weight_rules(result: Json) -> str:
    heads = ["", "accuracy", "zeros", "bytes", "smaller", "exit code"]
    rows = [
        [
            *(name, f"{100 - row['error_percent']['encode']:.2f} %"),
            *(f"{100 * row['sparsity']:.1f} %", f"{row['artifact_bytes']:,}"),
            *(f"{row['ratio']:.1f}x", row["exit_code"]),
        ]
        for name, row in result["rows"].items()
    ]
    return _table(heads, rows)


def course_lab(result: Json) -> str:
    heads = ["", "epochs", "accuracy", "parameters", "not zero", "MACs", "bytes, .dcz", "as fast"]
    rows = [
        [
            *(row["name"], row["epochs"], percent(row["accuracy"]), f"{row['parameters']:,}"),
            *(f"{row['nonzero']:,}", f"{row['macs']:,}", f"{row['artifact_bytes']:,}"),
            f"{row['faster']:.2f}x",
        ]
        for row in result["rows"]
    ]
    return _table(heads, rows)


def mnist_records(result: Json) -> str:
    """Every ingredient left out of the first seed's run, beside that run."""
    heads = ["network", "left out", "bytes", "smaller", "error", "validation error"]
    rows = []
    for network, found in result["networks"].items():
        whole, paper = found["seeds"][0], found.get("paper")
        runs = {"nothing": whole, **found["without"], "all: the paper's recipe": paper}
        for name, run in runs.items():
            if run is not None:
                errors = [run["error_percent"]["encode"], run["validation_error_percent"]]
                figures = [f"{run['bytes']:,}", f"{run['ratio']:.0f}x"]
                rows.append([network, name, *figures, *(f"{each:.2f} %" for each in errors)])
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return table(Grid("", tuple(heads), [tuple(map(str, row)) for row in rows]))


TABLES: dict[str, Callable[[Json], str]] = {
    "mnist-records": mnist_records,
    "one_shot_iterative": one_shot_iterative,
    "weight_rules": weight_rules,
    "course_lab_resnet20": course_lab,
}


if __name__ == "__main__":
    main()
