"""How many of 46 networks are cut at 50 %, proved, exported and run; Torch-Pruning beside it.

    OMP_NUM_THREADS=1 python -m compressor.benchmarks.channels.coverage [--rival FOLDER]
        [--rival-only] [--only PATTERN...] [-o FILE]

Each network runs in a process of its own with a time limit, so that one that fails does not end the
run. A network passes where channels were removed, the proof holds, the ONNX file is written and
ONNX Runtime agrees with PyTorch to 1e-5 at batches that it was not traced with; ``covered.py`` has
the steps. ``--only`` runs some networks again and leaves the other rows of the file as they are;
``--rival`` names the environment that ``rivals.environment`` made, and ``--rival-only`` leaves our
part of the rows as it is.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.benchmarks.channels.networks import NETWORKS
from compressor.benchmarks.environment import environment
from compressor.benchmarks.rivals import python_of

RESULT = Path(__file__).parents[1] / "results" / "channels-coverage.json"
LIMIT_S = 900

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()  # before the work, so that the load is that of others
    rows = _known(arguments.output)
    only = arguments.only or ["*"]
    names = [name for name in NETWORKS if any(fnmatch.fnmatch(name, each) for each in only)]
    if not names:
        raise SystemExit(f"no network is called like {' or '.join(only)}: {', '.join(NETWORKS)}")
    for name in names:
        if not (arguments.rival_only and name in rows):
            row = one(
                sys.executable, "compressor.benchmarks.channels.covered", name, arguments.limit
            )
        else:
            row = rows[name]
        if arguments.rival is not None:
            worker = "compressor.benchmarks.channels.rivals.torch_pruning"
            row["torch_pruning"] = one(
                str(python_of(arguments.rival)), worker, name, arguments.limit
            )
        elif name in rows and "torch_pruning" in rows[name]:
            row["torch_pruning"] = rows[name]["torch_pruning"]
        rows[name] = row
        print(line(row), flush=True)
        ordered = [rows[name] for name in NETWORKS if name in rows]
        result = {
            "benchmark": "channels/coverage",
            **summary(ordered),
            "environment": described,
            "rows": ordered,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary(ordered), indent=1))


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.channels.coverage")
    described.add_argument("--only", nargs="+", metavar="PATTERN", help="networks, * allowed")
    described.add_argument("--rival", type=Path, metavar="FOLDER", help="Torch-Pruning's")
    described.add_argument("--rival-only", action="store_true", help="keep our rows of FILE")
    described.add_argument("--limit", type=int, default=LIMIT_S, help="seconds for one network")
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def one(python: str, module: str, name: str, limit: int) -> Row:
    """The row that ``module`` prints for a network, last on its standard output."""
    try:
        done = subprocess.run(
            [python, "-m", module, name], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"network": name, "outcome": "failed", "error": f"over {limit} s"}
    lines = done.stdout.strip().splitlines()
    try:
        row: Row = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"network": name, "outcome": "failed", "error": said[-1]}
    return row


def summary(rows: Sequence[Row]) -> Row:
    """How many passed, ours and theirs."""
    theirs = [row["torch_pruning"] for row in rows if "torch_pruning" in row]
    found: Row = {
        "networks": len(rows),
        "passed": sum(row["outcome"] == "passed" for row in rows),
        "own_class_kept": sum(row.get("rewritten") is False for row in rows),
        "failed": [row["network"] for row in rows if row["outcome"] != "passed"],
    }
    if theirs:
        found["torch_pruning"] = {
            "networks": len(theirs),
            "passed": sum(row["outcome"] == "passed" for row in theirs),
            "failed": [row["network"] for row in theirs if row["outcome"] != "passed"],
        }
    return found


def line(row: Row) -> str:
    """One row of the table."""
    theirs = row.get("torch_pruning", {})
    rival = f" | {theirs['outcome']} {theirs.get('macs_ratio', '')}" if theirs else ""
    if row["outcome"] != "passed":
        return f"{row['network']:34} FAILED at {row.get('step')}: {row['error']}{rival}"
    seconds = row["seconds"]
    return (
        f"{row['network']:34} {row['parameters_ratio']:6.2f} x {row['macs_ratio']:6.2f} x  "
        f"{'graph' if row['rewritten'] else 'own':5} "
        f"frozen {row['frozen_layers']:3}/{row['layers']:3}  "
        f"{seconds['analysis']:5.2f} s after {seconds['export']:5.2f} s  "
        f"proof {row['proof']['difference']:.0e} ({row['proof']['dtype']})  "
        f"onnx {max(row['onnx_difference'].values()):.0e}{rival}"
    )


def _known(path: Path) -> dict[str, Row]:
    """The rows of an earlier run."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {row["network"]: row for row in found}


if __name__ == "__main__":
    main()
