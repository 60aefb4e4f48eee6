"""One method's files, in a process of its own: `__main__` runs two at a time.

    python -m compressor.benchmarks.peers.making FOLDER METHOD

FOLDER holds ``task.json``. Leaves ``METHOD.json``, a row for each file that the method ships, and
the ONNX files that they name. What fails is a row too: it says why.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from compressor.benchmarks.peers import ours, theirs
from compressor.benchmarks.peers.rows import Method, Work
from compressor.benchmarks.peers.tasks import Task

METHODS: dict[str, Method] = {
    "general": theirs.general,
    "weights": theirs.weights,
    "channels": theirs.channels,
    "integers": theirs.integers,
    "codec": theirs.codec,
    "our-codec-no-data": ours.without_data,
    "our-codec": ours.calibrated,
    "our-weights": ours.weights,
    "our-channels": ours.channels,
}
"""In the order of the table."""
LONG = ("our-channels", "channels", "our-weights", "weights", "our-codec")
"""Begun first, so that two cores have work to the end."""


def made(work: Work, method: str) -> list[dict[str, Any]]:
    """The method's rows; its models lie in the folder, each once."""
    rows = []
    try:
        for each in METHODS[method](work):
            name = f"{method}-{hashlib.sha256(each.model).hexdigest()[:6]}.onnx"
            (work.folder.parent / name).write_bytes(each.model)
            rows.append(each.row(name))
    except Exception as error:  # whatever breaks, the row says so
        first = (str(error).strip().splitlines() or [""])[0]
        rows.append({"method": method, "failure": f"{type(error).__name__}: {first}"})
    return rows


def main() -> None:
    folder, method = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    own = folder / method
    own.mkdir(parents=True, exist_ok=True)
    task = Task.from_json((folder / "task.json").read_text(encoding="utf-8"))
    rows = made(Work(task, own), method)
    (folder / f"{method}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
