"""Files for edge/js/test/browser.mjs, with what Python makes of them.

python -m tests.edge_cases FOLDER FILE.dcz... writes the files, all golden ones, and ``cases.json``:
the SHA-256 of every tensor, and of files with a graph an input and Python's answer.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from compressor.artifact import read
from compressor.errors import ArtifactError
from compressor.export.onnx import build
from tests.edge_files import BAD, GOOD


def case(path: Path) -> dict[str, Any]:
    """What a file holds and, where it can be run, computes."""
    artifact = read(path)
    tensors = artifact.tensors()
    found: dict[str, Any] = {
        "name": path.stem,
        "tensors": {
            name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in tensors.items()
        },
    }
    try:
        model = build(artifact.graph or b"", tensors, artifact.metadata)
    except ArtifactError:
        return found
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 2 for size in entry.shape]
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (answer,) = session.run(None, {entry.name: images})
    return {
        **found,
        "shape": shape,
        "input": images.reshape(-1).tolist(),
        "output": answer.reshape(-1).tolist(),
    }


def main() -> None:
    """Write the folder."""
    folder, *files = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    good = []
    for place, path in enumerate([*files, *GOOD]):
        copy = folder / f"{place}-{path.stem}.dcz"
        shutil.copy(path, copy)
        good.append(case(copy))
    for path in BAD:
        shutil.copy(path, folder / f"bad-{path.name}")
    record = {"good": good, "bad": [f"bad-{path.stem}" for path in BAD]}
    (folder / "cases.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
