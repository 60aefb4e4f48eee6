"""A sweep on two Dask workers of this machine, one of them killed with SIGKILL half-way.

    python -m compressor.benchmarks.sweeps [-o NAME]

LeNet-5 on scikit-learn's digits, a grid of six points. The same sweep in local processes,
undisturbed, says what every point must come to: the artifacts must agree byte for byte, and the
Dask sweep must have every point once.
"""

import argparse
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressor.benchmarks.experiments import compress, save

TRAIN = "train lenet5 --data digits --epochs 3 --threads 1 -o net.pt -q"
RECIPE = """\
threads = 1
[data]
spec = "digits"
[prune]
[prune.retrain]
epochs = 1
[share]
[share.finetune]
epochs = 0
"""
BEGIN = "sweep recipe.toml --model net.pt -q"
GRID = "--set prune.sensitivity=0.5,1.0,1.5 --set share.bits=4,5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("-o", "--output", default="sweeps", help="name of the result file")
    options = parser.parse_args()
    sweep = f"{BEGIN} {GRID}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "recipe.toml").write_text(RECIPE)
        compress(TRAIN.split(), folder)
        begin = time.perf_counter()
        compress([*sweep.split(), "-o", "local"], folder)
        undisturbed = time.perf_counter() - begin
        with cluster(folder) as (address, workers):
            found = disturbed(sweep, folder, address, workers)
        expected, got = artifacts(folder / "local"), artifacts(folder / "dask")
        if got != expected:
            sys.exit("the disturbed sweep ended with other points or other bytes")
    save(
        options.output,
        {**found, "points": len(got), "same_bytes": len(got), "local_seconds": undisturbed},
        [f"compress {TRAIN}", f"compress {sweep}", f"compress {sweep} --scheduler 127.0.0.1:PORT"],
    )


def disturbed(
    sweep: str, folder: Path, address: str, workers: list["subprocess.Popen[bytes]"]
) -> dict[str, Any]:
    """The sweep on the cluster; the first worker is killed once two points are done."""
    begin = time.perf_counter()
    words = [*sweep.split(), "-o", "dask", "--scheduler", address]
    process = subprocess.Popen([sys.executable, "-m", "compressor", *words], cwd=folder)
    while (done := states(folder / "dask").count("finished")) < 2:
        if process.poll() is not None:
            sys.exit("the sweep ended before a worker could be killed")
        time.sleep(0.05)
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    if process.wait(timeout=600) != 0:
        sys.exit("the disturbed sweep failed")
    if set(states(folder / "dask")) != {"finished"}:
        sys.exit(f"states at the end: {states(folder / 'dask')}")
    return {"finished_when_killed": done, "disturbed_seconds": time.perf_counter() - begin}


def states(folder: Path) -> list[str]:
    """The state of every point in ``sweep.json``."""
    try:
        return [row["state"] for row in json.loads((folder / "sweep.json").read_text())["points"]]
    except FileNotFoundError:
        return []


def artifacts(folder: Path) -> dict[str, bytes]:
    """The artifact of every folder below ``points``: each must be in ``sweep.json`` once."""
    rows = json.loads((folder / "sweep.json").read_text())["points"]
    named = sorted(row["folder"] for row in rows)
    if named != sorted(f"points/{path.name}" for path in (folder / "points").iterdir()):
        sys.exit(f"{folder.name}: the rows and the folders of points differ")
    return {name: (folder / name / "net.dcz").read_bytes() for name in named}


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """A scheduler and two workers of one thread on the loopback; its address, and the workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    words = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    started = [_dask(folder, words)]
    for number in range(2):
        local = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory"]
        started.append(_dask(folder, ["worker", f"tcp://{address}", *local, f"worker{number}"]))
    try:
        _wait_for(port)
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def _dask(folder: Path, words: list[str]) -> "subprocess.Popen[bytes]":
    module = f"distributed.cli.dask_{words[0]}"
    with (folder / "dask.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *words[1:]], cwd=folder, stdout=log, stderr=log
        )


def _wait_for(port: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    sys.exit("the Dask scheduler did not start")


if __name__ == "__main__":
    main()
