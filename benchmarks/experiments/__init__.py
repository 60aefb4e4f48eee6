"""Running the tool as a user does, and collecting what its reports say.

Experiments call the command line in processes of their own, so that what they show is what a user
gets. Every result file tells the commands, the hardware and the versions.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.benchmarks.environment import environment

Json = dict[str, Any]
RESULTS = Path(__file__).resolve().parent.parent / "results"


def compress(arguments: Sequence[str], folder: Path) -> None:
    """Run ``compress ARGUMENTS`` in ``folder``; its progress and tables are shown as they come."""
    print("$ compress", " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "compressor", *arguments], cwd=folder, check=True)


def summary(report: Json) -> Json:
    """The figures of a run's report that an experiment is about."""
    stages = report["stages"]
    return {
        "parameters": report["network"]["fp32_bytes"] // 4,
        "artifact_bytes": stages["encode"]["bytes"],
        "weights_only_bytes": stages["encode"]["weights_only_bytes"],
        "ratio": stages["encode"]["ratio"],
        "sparsity": stages["encode"]["sparsity"],
        "bytes": {name: stage["bytes"] for name, stage in stages.items() if "bytes" in stage},
        "error_percent": {
            name: round(100 * (1 - stage["accuracy"]), 2)
            for name, stage in stages.items()
            if stage.get("accuracy") is not None
        },
        "validation_accuracy": last_validation(stages),
        "test_images": report["data"]["test_images"],
        "seconds": {name: round(stage["seconds"], 1) for name, stage in stages.items()},
    }


def last_validation(stages: Json) -> float | None:
    """Validation accuracy after the last epoch of the last stage that trained."""
    epochs = [row for name in ("prune", "share") for row in stages.get(name, {}).get("history", [])]
    return epochs[-1]["validation"] if epochs else None


def save(name: str, content: Json, commands: Sequence[str]) -> Path:
    """Write ``results/NAME.json`` with commands, hardware and versions."""
    path = RESULTS / f"{name}.json"
    record = {"commands": list(commands), **content, "environment": environment()}
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path.relative_to(RESULTS.parent.parent)}")
    return path
