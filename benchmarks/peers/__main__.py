"""All methods on all networks, measured in turns; table, picture and rows.

    python -m compressor.benchmarks.peers --checkpoints FOLDER --data-root FOLDER

Networks are ResNet-20 on CIFAR-10, where its checkpoint is below ``--checkpoints`` and the data
below ``--data-root``, and LeNet-5, trained on the spot, on MNIST below ``--data-root`` or without
it on scikit-learn's digits. Writes ``results/peers.json``, ``.svg`` and ``.md``.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from compressor.benchmarks.environment import environment
from compressor.benchmarks.experiments import RESULTS
from compressor.benchmarks.harness.bench import Plan, bench
from compressor.benchmarks.harness.rounds import Limits
from compressor.benchmarks.harness.subjects import subjects
from compressor.benchmarks.peers import making, table
from compressor.benchmarks.peers.tasks import PASS, TRAINING, Task, lenet5, resnet20
from compressor.reporting.console import ConsoleProgress

Row = dict[str, Any]
SECONDS = 75.0
FIGURES = ("median_ms", "faster", "conclusion", "failure")


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()  # before the work: the load is that of others
    arguments.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    networks = [measured(task, arguments) for task in tasks(arguments)]
    result = {"benchmark": "peers", "environment": described, "networks": networks}
    write(result, arguments.output)


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.peers")
    described.add_argument("--checkpoints", type=Path, help="where the ResNet-20 is")
    described.add_argument("--data-root", type=Path, help="where CIFAR-10 and MNIST are")
    described.add_argument("--network", choices=("resnet20", "lenet5"), help="that one alone")
    build = Path("build", "peers")
    described.add_argument("--folder", type=Path, default=build, help="for what methods make")
    described.add_argument("--environments", type=Path, default=build / "environments")
    described.add_argument("--jobs", type=int, default=2, help="methods at a time, a core each")
    described.add_argument("--images", type=int, default=PASS, help="of the pass of training")
    described.add_argument("--seconds", type=float, default=SECONDS, help="of timing, at most")
    described.add_argument("--methods", nargs="+", choices=making.METHODS, default=making.METHODS)
    described.add_argument("--keep", action="store_true", help="methods whose rows are there")
    described.add_argument("-o", "--output", type=Path, default=RESULTS / "peers.json")
    return described


def tasks(arguments: argparse.Namespace) -> Iterator[Task]:
    """What is asked for, of what the folders given allow."""
    root, environments = arguments.data_root, arguments.environments.resolve()
    asked = (arguments.network,) if arguments.network else ("resnet20", "lenet5")
    if "resnet20" in asked and arguments.checkpoints is not None and root is not None:
        yield resnet20(arguments.checkpoints, root, environments)
    if "lenet5" in asked:
        yield lenet5(root, environments, arguments.folder)


def measured(task: Task, arguments: argparse.Namespace) -> Row:
    """One network: its methods, two at a time, and then all of their files in turns."""
    task = replace(task, images=arguments.images)
    folder = arguments.folder / task.name
    folder.mkdir(exist_ok=True)
    (folder / "task.json").write_text(task.to_json(), encoding="utf-8")
    order = sorted(arguments.methods, key=lambda name: name not in making.LONG)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda name: make(folder, name, keep=arguments.keep), order))
    rows = [
        row
        for name in making.METHODS
        if name in arguments.methods
        for row in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    ]
    if "failure" in rows[0]:
        raise SystemExit(f"{task.name}: nothing to compare with: {rows[0]['failure']}")
    timed = time(task, rows, folder, arguments.seconds)
    data = task.load()
    return {
        "network": task.arch,
        "data": task.data,
        "checkpoint": task.checkpoint.name,
        "test_images": timed["rows"][0]["accuracy"]["images"],
        "training": {**vars(TRAINING), "images": task.passed(data)},
        **timed,
    }


def make(folder: Path, method: str, *, keep: bool) -> None:
    """Run a method in a process of its own; one that dies leaves a row that says so."""
    path = folder / f"{method}.json"
    if keep and path.exists():
        return
    path.unlink(missing_ok=True)
    print(f"{folder.name}: {method}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "compressor.benchmarks.peers.making", str(folder), method]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if not path.exists():
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        path.write_text(json.dumps([{"method": method, "failure": said}]), encoding="utf-8")


def time(task: Task, rows: Sequence[Row], folder: Path, seconds: float) -> Row:
    """The rows with what ``compress bench`` says of their files; the first is the dense one's."""
    names = list(dict.fromkeys(row["onnx"] for row in rows if "onnx" in row))
    root = None if task.root is None else str(task.root)
    data = {"spec": task.data, "root": root, "mean": None, "std": None}
    plan = Plan(runtimes=("ort",), data=data, limits=Limits(seconds=seconds))
    files = subjects([folder / name for name in names])
    result = bench(files, plan, ConsoleProgress())
    if result["interrupted"]:
        raise KeyboardInterrupt
    about = {each["label"]: each for each in result["subjects"]}
    cells = {each["subject"]: each for each in result["cells"]}
    found = []
    for row in rows:
        if "onnx" in row:
            one, cell = about[row["onnx"]], cells[row["onnx"]]
            row = row | {"macs": one.get("macs"), "accuracy": one.get("accuracy")}
            row |= {key: cell.get(key) for key in FIGURES}
        found.append(row)
    how = {"launches": [cell.get("launches") for cell in cells.values()]}
    return {"rows": found, "warnings": result["warnings"], "timing": {**how, "seconds": seconds}}


def write(result: Row, output: Path) -> None:
    """The rows, the table and the picture, beside each other."""
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".svg").write_text(table.picture(result), encoding="utf-8")
    output.with_suffix(".md").write_text(table.markdown(result), encoding="utf-8")
    print(f"wrote {output} and beside it .svg and .md")


if __name__ == "__main__":
    main()
