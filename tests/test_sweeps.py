"""Sweeps: the grid, what is refused before anything runs, what is survived."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import UsageError
from compressor.recipe import Recipe
from compressor.reporting import sweeps
from compressor.sweep import local
from compressor.sweep.grid import Axis, label, parse_axes, points
from compressor.sweep.point import Child, Job
from tests.conftest import Compress

RECIPE = """\
threads = 1
[prune]
[prune.retrain]
epochs = 0
"""
GRID = ("--set", "prune.sensitivity=0.5,1.0")


@pytest.fixture
def bench(here: Path, shelf: Path) -> Path:
    """A working directory with a recipe and a network."""
    (here / "recipe.toml").write_text(RECIPE)
    shutil.copy(shelf / "net.pt", here / "net.pt")
    return here


def content(folder: str = "net-sweep") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "sweep.json").read_text())
    return found


# --- the grid -------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_the_last_axis_fastest() -> None:
    axes = parse_axes(["prune.sensitivity=0.5, 1", "seed=3,4,5"])
    found = points(Recipe(), axes)

    assert [(s["prune.sensitivity"], s["seed"]) for s, _ in found] == [
        (a, b) for a in (0.5, 1) for b in (3, 4, 5)
    ]
    for settings, recipe in found:
        assert recipe.prune is not None
        assert recipe.prune.rules.table() == {"*": settings["prune.sensitivity"]}
        assert recipe.seed == settings["seed"]
    assert label(found[1][0]) == "prune.sensitivity=0.5 seed=4"


def test_values_with_commas_are_a_list() -> None:
    (axis,) = parse_axes(['prune.sensitivity=["conv=0.5,fc=1", 0.7]'])
    tables = [r.prune and r.prune.rules.table() for _, r in points(Recipe(), [axis])]

    assert axis == Axis("prune.sensitivity", ("conv=0.5,fc=1", 0.7))
    assert tables == [{"conv": 0.5, "fc": 1.0}, {"*": 0.7}]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "nothing to sweep"),
        (["seed"], "give KEY=V1,V2"),
        (["=1"], "give KEY=V1,V2"),
        (["seed="], "a value is empty"),
        (["seed=1,,2"], "a value is empty"),
        (["seed=[]"], "a value is empty"),
        (["seed=[1,"], "not a TOML list"),
        (["seed=[1]\nb=2"], "not a TOML list"),
        (["seed=1", "seed=2"], "given twice"),
        (["prune.sensitivity=conv=0.5,fc=1"], "write a list"),
    ],
)
def test_what_is_no_grid_is_refused(items: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_axes(items)


# --- refused before anything runs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "prune.sensitivty=1,2"], 2, "unknown setting 'sensitivty'"),
        (["--set", "prune.sensitivity=1,-2"], 2, "it must be a number between"),
        (["--set", 'prune.sensitivity=["nosuch=1"]'], 1, "no layer is called 'nosuch'"),
        (["--set", "prune.sensitivity="], 2, "a value is empty"),
        (["--set", "prune.sensitivity=0.5,0.50"], 2, "one and the same"),
        ([], 2, "nothing to sweep"),
        ([*GRID, "--jobs", "2", "--scheduler", "127.0.0.1:1"], 2, "--jobs is for processes here"),
        (["--threads", "1", "--set", "threads=1,2"], 2, "are one setting"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    bench: Path, compress: Compress, words: list[str], code: int, said: str
) -> None:
    outcome = compress("sweep", "recipe.toml", "--model", "net.pt", *words)

    assert (outcome.code, outcome.err.count("\n")) == (code, 1)
    assert said in outcome.err
    assert sorted(path.name for path in bench.iterdir()) == ["net.pt", "recipe.toml"]


def test_an_unreachable_scheduler_is_one_line(bench: Path, compress: Compress) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nothing listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        begin = time.monotonic()
        words = ("sweep", "recipe.toml", "--model", "net.pt", *GRID, "--scheduler")
        outcome = compress(*words, address)
        seconds = time.monotonic() - begin

    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert f"no Dask scheduler answers at {address}" in outcome.err
    assert seconds < 20
    assert "give HOST:PORT" in compress(*words, "nonsense").err


def test_a_dry_run_lists_the_points_and_writes_nothing(bench: Path, compress: Compress) -> None:
    words = ("sweep", "recipe.toml", "--model", "net.pt", *GRID, "--dry-run", "--json")
    rows = json.loads(compress(*words).out)["points"]

    assert [row["settings"] for row in rows] == [
        {"prune.sensitivity": 0.5},
        {"prune.sensitivity": 1.0},
    ]
    assert {row["state"] for row in rows} == {"waiting"}
    assert not Path("net-sweep").exists()


# --- running, and going on ------------------------------------------------------------------------


@pytest.mark.slow
def test_only_what_is_not_finished_runs_again(bench: Path, compress: Compress) -> None:
    command = ("sweep", "recipe.toml", "--model", "net.pt", "--jobs", "2", *GRID)
    first = compress(*command)
    rows = content()["points"]
    reports = [Path("net-sweep", row["folder"], "report.json") for row in rows]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in reports]
    reports[1].unlink()
    second = compress(*command)

    assert (first.code, second.code) == (0, 0)
    assert "1 of 2 points are finished already" in second.err
    assert (reports[0].stat().st_mtime_ns, reports[0].read_bytes()) == before[0]
    assert reports[1].stat().st_mtime_ns > before[1][0]
    assert len(list(Path("net-sweep/points").iterdir())) == 2
    for row, path in zip(rows, reports, strict=True):
        encode = json.loads(path.read_text())["stages"]["encode"]
        artifact = path.parent / "net.dcz"
        assert row["bytes"] == encode["bytes"] == artifact.stat().st_size
        assert row["sparsity"] == encode["sparsity"]
    table = Path("net-sweep/sweep.md").read_text()
    assert all(f"{row['bytes']:,}" in table for row in rows)

    Path("recipe.toml").write_text(RECIPE + "lr = 0.5\n")
    begun = content()
    other = compress(*command)
    assert (other.code, other.err.count("\n")) == (1, 1)
    assert "is of another sweep (recipe changed)" in other.err
    assert content() == begun
    assert compress(*command, "--dry-run", "--force").code == 0


def test_a_folder_of_something_else_is_left_alone(bench: Path, compress: Compress) -> None:
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    outcome = compress("sweep", "recipe.toml", "--model", "net.pt", *GRID, "-o", "mine")

    assert outcome.code == 1
    assert "holds other files and no sweep" in outcome.err
    assert [path.name for path in Path("mine").iterdir()] == ["letter.txt"]


def test_a_point_that_fails_is_a_row_and_the_others_are_kept(
    bench: Path, compress: Compress
) -> None:
    words = ("sweep", "recipe.toml", "--model", "net.pt", "--jobs", "2")
    # So small a tolerance fails at the ONNX check, long after the preflight.
    outcome = compress(*words, "--set", "export.tolerance=0,1e-3")
    failed, kept = content()["points"]

    assert outcome.code == 1
    assert "1 of 2 points failed" in outcome.err
    assert (failed["state"], kept["state"]) == ("failed", "finished")
    assert "ONNX" in failed["error"]
    assert f"failed: export.tolerance=0: {failed['error']}" in outcome.out


def test_a_process_that_is_killed_is_its_own_failure(bench: Path) -> None:
    recipe = Recipe.from_toml(RECIPE).to_toml()
    jobs = {name: Job("net.pt", recipe, name, 1) for name in ("a", "b")}
    outcomes = local.run(jobs, 1)
    children: list[Child] = []
    start = Child.__init__

    def noting(self: Child, job: Job, cwd: str | None = None) -> None:
        start(self, job, cwd)
        children.append(self)
        if job.folder == "a":
            self._process.send_signal(signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "__init__", noting)
        ended = dict(outcomes)

    assert "killed by signal 9" in str(ended["a"])
    assert ended["b"] is None
    assert len(children) == 2
    assert not Path("a", "report.json").exists()
    assert Path("b", "report.json").exists()


def test_a_process_ends_when_nobody_waits_for_it(bench: Path) -> None:
    child = Child(Job("net.pt", Recipe.from_toml(RECIPE).to_toml(), "out", 1))
    try:
        assert child._process.stdin is not None
        child._process.stdin.close()  # as when this process were killed
        child._process.wait(timeout=30)
        assert child.error() is not None
        assert not Path("out", "report.json").exists()
    finally:
        child.end()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_stopped_goes_on(bench: Path, how: signal.Signals) -> None:
    words = ["sweep", "recipe.toml", "--model", "net.pt", "--set", "seed=0,1,2"]
    command = [sys.executable, "-m", "compressor", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path().glob("net-sweep/points/*/report.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, how)
    _, err = process.communicate(timeout=60)
    kept = {p: p.stat().st_mtime_ns for p in Path().glob("net-sweep/points/*/report.json")}
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "are finished and kept; the same command" in err
    assert again.returncode == 0, again.stderr
    assert f"{len(kept)} of 3 points are finished already" in again.stderr
    assert [row["state"] for row in content()["points"]] == ["finished"] * 3
    assert len(list(Path("net-sweep/points").iterdir())) == 3
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def test_plots_of_what_varies(tmp_path: Path) -> None:
    axes = {"share.bits": [3, 5], "share.init": ["linear", "optimal"], "seed": [0]}
    rows = [
        {
            "settings": {"share.bits": bits, "share.init": init, "seed": 0},
            "state": "finished",
            "accuracy": 0.9 + bits / 100,
            "bytes": 1000 * bits,
        }
        for bits in axes["share.bits"]
        for init in axes["share.init"]
    ]
    found = sweeps.draw({"axes": axes, "points": rows}, tmp_path)

    assert found == [
        "accuracy-bytes.svg",
        "accuracy-share.bits.svg",
        "accuracy-share.init.svg",
    ]
    first = {name: (tmp_path / name).read_bytes() for name in found}
    assert all(blob.startswith(b"<?xml") for blob in first.values())
    sweeps.draw({"axes": axes, "points": rows}, tmp_path)
    assert first == {name: (tmp_path / name).read_bytes() for name in found}


# --- on a cluster ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_counts_nothing_twice(bench: Path) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    from compressor.benchmarks.sweeps import BEGIN, RECIPE, artifacts, cluster, disturbed

    Path("recipe.toml").write_text(RECIPE)
    train = ["train", "lenet5", "--data", "digits", "--epochs", "1", "--threads", "1"]
    compressor = [sys.executable, "-m", "compressor"]
    subprocess.run([*compressor, *train, "-o", "net.pt", "-q", "--force"], check=True)
    with cluster(bench) as (address, workers):
        grid = f"{BEGIN} --set prune.sensitivity=0.5,1 --set share.bits=4,5"
        killed = disturbed(grid, bench, address, workers)
    found = artifacts(bench / "dask")  # every point's folder is one row's, and the other way round

    assert 2 <= killed["finished_when_killed"] < 4
    assert len(found) == len(set(found.values())) == 4
    last = content("dask")["points"][-1]["folder"]
    again = ["run", "net.pt", "--recipe", f"dask/{last}/recipe.toml", "-o", "alone", "-q"]
    subprocess.run([*compressor, *again], check=True)
    assert found[last] == Path("alone/net.dcz").read_bytes()
