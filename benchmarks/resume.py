"""Kill runs at random moments with SIGKILL, resume them, compare every byte.

    python -m compressor.benchmarks.resume [--kills 100] [--seed 0] [-o FILE.json]

One small run (LeNet-300-100 on scikit-learn's digits, pruned, shared, retrained) is made
undisturbed; then it is begun again and again, killed after a random fraction of the time it takes,
resumed (every fourth one is killed a second time on the way) and compared: artifact, ONNX file and
recipe must have the very bytes of the undisturbed run.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from compressor.benchmarks.experiments import compress, save
from compressor.files import PAGES, REPORT

OUTPUTS = ("net.dcz", "net.onnx", "recipe.toml")
TRAIN = "train lenet-300-100 --data digits --epochs 3 --threads 1 -o net.pt -q"
RUN = (
    "run net.pt --data digits --prune-sensitivity 0.5 --quantize 4bit --epochs 6 "
    "--finetune-epochs 4 --threads 1 -o out -q"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="resume", help="name of the result file")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        compress(TRAIN.split(), folder)
        begin = time.perf_counter()
        compress(RUN.split(), folder)
        duration = time.perf_counter() - begin
        expected = outputs(folder)
        states: Counter[str] = Counter()
        for count in range(options.kills):
            shutil.rmtree(folder / "out", ignore_errors=True)
            state = begin_and_kill(folder, rng.uniform(0, duration), resume=False)
            if count % 4 == 3:
                state = begin_and_kill(folder, rng.uniform(0, duration), resume=True)
            states[state] += 1
            subprocess.run(command(resume=True), cwd=folder, check=True)
            if outputs(folder) != expected:
                sys.exit(f"kill {count + 1}, {state}: the resumed run ended with other bytes")
            leftovers = sorted(p.name for p in (folder / "out").iterdir())
            if leftovers != sorted((*OUTPUTS, REPORT, *PAGES)):
                sys.exit(f"kill {count + 1}, {state}: the folder holds {leftovers}")
            print(f"{count + 1}/{options.kills} {state}: same bytes", flush=True)
    found = {
        "kills": options.kills,
        "same_bytes": options.kills,
        "undisturbed_seconds": duration,
        "killed_when_finished": dict(states),
    }
    save(
        options.output, found, [f"compress {TRAIN}", f"compress {RUN}", f"compress {RUN} --resume"]
    )


def command(*, resume: bool) -> list[str]:
    """The run as a process of its own."""
    extra = ["--resume"] if resume else []
    return [sys.executable, "-m", "compressor", *RUN.split(), *extra]


def begin_and_kill(folder: Path, after: float, *, resume: bool) -> str:
    """Start the run, SIGKILL it after that many seconds; how far it had come."""
    process = subprocess.Popen(command(resume=resume), cwd=folder, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stages = sorted(p.stem for p in (folder / "out" / ".stages").glob("*.json") if p.stem != "run")
    if (folder / "out" / "report.json").exists():
        return "all"
    return "+".join(stages) or "nothing"


def outputs(folder: Path) -> dict[str, bytes]:
    """The bytes that must not depend on how often a run was killed."""
    return {name: (folder / "out" / name).read_bytes() for name in OUTPUTS}


if __name__ == "__main__":
    main()
