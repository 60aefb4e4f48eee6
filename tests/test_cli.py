"""The command line as its users meet it: what it prints where, what it writes, how it goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from compressor import artifact
from compressor.files import PAGES
from compressor.per_layer import PerLayer
from compressor.recipe import CHIEF, Recipe, shipped_recipes
from compressor.settings import Calibrate, Channels, DataSpec, Prune, Share
from compressor.training import fit
from compressor.workspace import Workspace


class Outcome(Protocol):
    """What a command did: exit code, stdout, stderr (see conftest.py)."""

    code: int
    out: str
    err: str


Compress = Callable[..., Outcome]

STAGES = ("dense", "prune", "share", "encode", "export")
OUTPUTS = ("net.dcz", "net.onnx", "recipe.toml")
BOTH = ("--prune-sensitivity", "0.5", "--quantize", "fc=4bit,fc3=2bit")
GO_ON = "error: interrupted: the same command with --resume goes on from where it stopped"
SHORT = ("--epochs", 1, "--finetune-epochs", 1, "--threads", 1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def command(shelf: Path) -> list[object]:
    """A whole small run: both stages, with retraining."""
    return [shelf / "net.pt", "--data", shelf / "data.npz", *BOTH, *SHORT]


@pytest.fixture(scope="module")
def finished(compress: Compress, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one undisturbed run."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    done = compress(*command(shelf), "-q", "-o", folder)
    assert (done.code, done.out, done.err) == (0, "", "")
    return folder


# ---- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command_and_the_exit_codes(
    compress: Compress, arguments: tuple[str, ...]
) -> None:
    done = compress(*arguments)
    assert (done.code, done.err) == (0, "")
    commands = ("run", "train", "inspect", "decompress", "export", "diff", "patch", "recipe")
    for word in (*commands, "130"):
        assert re.search(rf"\b{word}\b", done.out)


def test_the_version_is_that_of_the_package(compress: Compress) -> None:
    assert re.fullmatch(
        r"compress, version \d+\.\d+\.\d+ \((C core|NumPy.*)\)\n", compress("--version").out
    )


def test_run_may_be_left_out_and_options_may_come_first(
    compress: Compress, shelf: Path, here: Path
) -> None:
    net = shelf / "net.pt"
    spelt_out = compress("run", net, "--quantize", "3bit", "--dry-run", "--json")
    assert spelt_out.code == 0
    assert compress(net, "--quantize", "3bit", "--dry-run", "--json") == spelt_out
    assert compress("--quantize=3bit", "--dry-run", "--json", net) == spelt_out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspct", "x.dcz"), "'inspct'; did you mean inspect?"),
        (("verfy", "x.dcz"), "did you mean verify?"),
        (("trian", "lenet5", "--data", "digits"), "did you mean train?"),
        (("help",), "commands: run, train, scan"),
        (("--jsno",), "No such option '--jsno'"),
        (("net.pt", "--quantise", "5bit"), "--quantize"),
        (("net.pt", "other.pt"), "unexpected extra argument (other.pt)"),
        (("net.pt",), "nothing to do: give --channels (0.3), --prune-sensitivity (0.25)"),
        (("net.pt", "--quantize"), "requires an argument"),
        (("inspect",), "Missing argument 'FILE'. (see compress inspect --help)"),
        (("decompress", "x.dcz"), "Missing option '-o'"),
        (("train",), "Missing argument 'ARCH'"),
    ],
)
def test_misspelt_and_unfinished_commands(
    compress: Compress, here: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = compress(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert says in done.err


def test_a_file_called_like_a_misspelt_command_is_a_file(compress: Compress, here: Path) -> None:
    (here / "inspct").write_text("no checkpoint")
    done = compress("inspct", "--quantize", "5bit")
    assert done.code == 1
    assert "inspct is not a checkpoint" in done.err


# ---- what is printed where ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataless(
    compress: Compress, shelf: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """A run without data or graph that prints JSON: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("dataless") / "out"
    asked = ("--quantize", "2bit", "--weights-only", "--threads", 1, "--json", "-o", folder)
    return folder, compress(shelf / "net.pt", *asked)


def test_json_is_alone_on_stdout_and_the_progress_on_stderr(
    dataless: tuple[Path, Outcome],
) -> None:
    folder, done = dataless
    report = json.loads(done.out)
    assert json.loads((folder / "report.json").read_text()) == report
    assert list(report["stages"]) == ["dense", "share", "dead", "encode", "export"]
    assert done.err.splitlines() == [f"{stage} ..." for stage in report["stages"]]


def test_without_data_nothing_is_retrained_and_the_report_says_what_was_not_measured(
    compress: Compress, shelf: Path, dataless: tuple[Path, Outcome]
) -> None:
    folder, done = dataless
    report = json.loads(done.out)
    assert report["data"] is None
    assert all(report["stages"][s]["accuracy"] is None for s in ("dense", "share", "encode"))
    assert report["stages"]["share"]["history"] == []
    missing = report["not_measured"][0]
    assert "accuracy" in missing
    asked = ("--quantize", "2bit", "--weights-only", "--threads", 1, "-o", folder, "--resume")
    assert f"not measured: {missing}" in compress(shelf / "net.pt", *asked).out


def test_quiet_prints_nothing_at_all(
    compress: Compress, shelf: Path, finished: Path, here: Path
) -> None:
    """As the run of the fixture itself did."""
    for more in (("-o", finished, "--resume"), ("--dry-run",)):
        done = compress(*command(shelf), "-q", *more)
        assert (done.code, done.out, done.err) == (0, "", "")


def test_the_table_shows_what_is_on_disk(
    compress: Compress, shelf: Path, finished: Path, here: Path
) -> None:
    shown = compress(*command(shelf), "-o", finished, "--resume")
    assert shown.code == 0
    assert "finished already" in shown.err
    for name in ("net.dcz", "net.onnx"):
        assert f"{(finished / name).stat().st_size:,}" in shown.out
    for layer in ("fc1", "fc2", "fc3"):
        assert layer in shown.out


def test_no_color_takes_the_colours_away(
    compress: Compress, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    training = ("train", "lenet-300-100", "--data", shelf / "data.npz", "--epochs", 1)
    coloured = re.compile(r"\x1b\[(?:\d+;)*[39]\d(?:;\d+)*m")
    assert coloured.search(compress(*training, "-o", "a.pt").err)
    monkeypatch.setenv("NO_COLOR", "1")
    done = compress(*training, "-o", "b.pt")
    assert done.code == 0
    assert not coloured.search(done.err)


def test_a_reader_that_has_seen_enough_is_no_error(finished: Path) -> None:
    """As in ``compress inspect net.dcz | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        arguments = [sys.executable, "-m", "compressor", "inspect", str(finished / "net.dcz")]
        done = subprocess.run(arguments, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode == 1


# ---- recipes -----------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_tells_the_plan(
    compress: Compress, shelf: Path, here: Path
) -> None:
    done = compress(*command(shelf), "--dry-run")
    assert done.code == 0
    assert list(here.iterdir()) == []
    assert "would write into net-compressed" in done.out
    recipe = Recipe.from_toml(done.out[done.out.index("arch = ") :])
    assert (recipe.arch, recipe.input_shape, recipe.threads) == ("lenet-300-100", (1, 28, 28), 1)

    found = json.loads(compress(*command(shelf), "--dry-run", "--json").out)
    assert Recipe.from_toml(found["recipe"]) == recipe
    weights = torch.load(shelf / "net.pt")
    for row in found["layers"]:
        weight = weights[f"{row['layer']}.weight"].double()
        assert row["threshold"] == pytest.approx(0.5 * weight.std(correction=0).item())
        assert row["sparsity"] == pytest.approx((weight.abs() < row["threshold"]).double().mean())
        assert row["bits"] == (2 if row["layer"] == "fc3" else 4)


def test_a_saved_recipe_repeats_the_run_to_the_byte(
    compress: Compress, shelf: Path, finished: Path, here: Path
) -> None:
    done = compress(*command(shelf), "--save-recipe", "mine.toml", "--dry-run", "-q")
    assert done.code == 0
    saved = (here / "mine.toml").read_bytes()
    assert saved == (finished / "recipe.toml").read_bytes()
    done = compress(shelf / "net.pt", "--recipe", "mine.toml", "-q")
    assert done.code == 0, done.err
    assert outputs(here / "net-compressed") == outputs(finished)


def test_options_go_before_the_recipe_and_set_before_options(
    compress: Compress, shelf: Path, here: Path
) -> None:
    (here / "r.toml").write_text("seed = 1\nthreads = 1\n[share]\nbits = 3\n")
    asked = (shelf / "net.pt", "--recipe", "r.toml", "--dry-run", "--json")

    def recipe(*more: object) -> Recipe:
        return Recipe.from_toml(json.loads(compress(*asked, *more).out)["recipe"])

    assert (recipe().seed, recipe().share) == (1, Share(bits=3))
    assert (recipe("--seed", 2).seed, recipe("--quantize", "6bit").share) == (2, Share(bits=6))
    assert recipe("--seed", 2, "--set", "seed=3").seed == 3


def leaves(settings: Any, prefix: str = "") -> list[str]:
    """Dotted names of all settings."""
    found = []
    for item in fields(settings):
        value = getattr(settings, item.name)
        name = f"{prefix}{item.name}"
        section = is_dataclass(value) and not isinstance(value, PerLayer)
        found += leaves(value, f"{name}.") if section else [name]
    return found


FULL = Recipe(channels=Channels(0.3), prune=Prune(), share=Share(), data=DataSpec("data.npz"))
CALIBRATED = Recipe(
    calibrate=Calibrate(), channels=Channels(target_macs=0.5), prune=Prune(sparsity=0.5)
)
SECTIONS = [item for item in fields(Recipe) if item.name in CHIEF]
# Text and value that is no default, for each setting; those of one name share them.
OTHER: dict[str, tuple[str, object]] = {
    "ratio": ("0.125,fc=0.5", PerLayer((("*", 0.125), ("fc", 0.5)))),
    "scope": ("global", "global"),
    "target_macs": ("0.125", 0.125),
    "target_latency": ("0.125", 0.125),
    "criterion": ("l1", "l1"),
    "prune.criterion": ("obs", "obs"),
    "threshold": ("0.125", 0.125),
    "round": ("16", 16),
    "keep": ("5", 5),
    "freeze_residual": ("true", True),
    "recalibrate": ("64", 64),
    "reconstruct": ("64", 64),
    "sensitivity": ("0.125,fc=1", PerLayer((("*", 0.125), ("fc", 1.0)))),
    "sparsity": ("0.125,fc=0.75", PerLayer((("*", 0.125), ("fc", 0.75)))),
    "schedule": ("splicing", "splicing"),
    "rounds": ("2", 2),
    "ramp": ("0.25", 0.25),
    "every": ("5", 5),
    "hysteresis": ("0.25", 0.25),
    "freeze": ("0.125", 0.125),
    "prune.rate": ("0.125", 0.125),
    "epochs": ("3", 3),
    "lr": ("0.125", 0.125),
    "optimizer": ("adam", "adam"),
    "momentum": ("0.5", 0.5),
    "weight_decay": ("0.125", 0.125),
    "batch_size": ("32", 32),
    "warmup": ("0.25", 0.25),
    "rewind": ("99", 99),
    "augment": ("none", "none"),
    "distill": ("0.125", 0.125),
    "temperature": ("2", 2.0),
    "slimming": ("0.125", 0.125),
    "bits": ("7bit", PerLayer((("*", 7),))),
    "init": ("density", "density"),
    "rate": ("0.125,fc=0.5", PerLayer((("*", 0.125), ("fc", 0.5)))),
    "noise": ("0.125", 0.125),
    "max_drop": ("0.5", 0.5),
    "images": ("64", 64),
    "centroids": ("5,fc=3", PerLayer((("*", 5), ("fc", 3)))),
    "width": ("fp32", "fp32"),
    "biases": ("6", 6),
    "order": ("true", True),
    "profile": ("flat", "flat"),
    "graph": ("false", False),
    "opset": ("19", 19),
    "tolerance": ("0.125", 0.125),
    "samples": ("8", 8),
    "emit": ("fp16,ort", ("ort", "fp16")),
    "calibration": ("8", 8),
    "spec": ("other.npz", "other.npz"),
    "validation": ("0.25", 0.25),
    "mean": ("0.5,0.25", (0.5, 0.25)),
    "std": ("0.5,0.25", (0.5, 0.25)),
    "arch": ("lenet5", "lenet5"),
    "task": ("mine.py:Task", "mine.py:Task"),
    "input_shape": ("3,32,32", (3, 32, 32)),
    "seed": ("3", 3),
    "threads": ("3", 3),
    "device": ("cuda:1", "cuda:1"),
    "precision": ("bf16", "bf16"),
    "compile": ("true", True),
}


SETTINGS = sorted({*leaves(FULL), *leaves(CALIBRATED)} - {field.name for field in SECTIONS})


@pytest.mark.parametrize("name", SETTINGS)
def test_set_reaches_every_setting(name: str) -> None:
    goals = ("channels.target_macs", "prune.sparsity", "prune.scope", "prune.criterion")
    other = name.startswith("calibrate.") or name in goals
    full = CALIBRATED if other else FULL
    text, value = OTHER.get(name) or OTHER[name.rpartition(".")[2]]
    pair = ("data.mean", "data.std")  # these two go together
    changed = full.with_settings(dict.fromkeys(pair if name in pair else (name,), text))
    assert attrgetter(name)(changed) == value
    if not (name.startswith("share.") and name.endswith(".optimizer")):  # adam already
        assert attrgetter(name)(full) != value


def test_set_on_the_command_line(compress: Compress, shelf: Path, here: Path) -> None:
    done = compress(
        *(shelf / "net.pt", "--set", "share.bits=fc=6bit,fc2=3bit", "--set", "encode.width=fp32"),
        *("--set", "share.finetune.lr = 0.5", "--dry-run", "--json"),
    )
    recipe = Recipe.from_toml(json.loads(done.out)["recipe"])
    assert recipe.share is not None
    assert recipe.share.rules.table() == {"fc": 6, "fc2": 3}
    assert recipe.share.finetune.lr == 0.5
    assert recipe.encode.width == "fp32"
    assert recipe.prune is None


def test_the_recipe_command_lists_and_prints(compress: Compress, finished: Path) -> None:
    listed = compress("recipe")
    assert [line.partition(":")[0] for line in listed.out.splitlines()] == shipped_recipes()
    printed = compress("recipe", finished / "recipe.toml")
    assert printed.out == (finished / "recipe.toml").read_text()
    for name in shipped_recipes():
        assert Recipe.from_toml(compress("recipe", name).out) == Recipe.read(name)


# ---- artifacts ---------------------------------------------------------------------------------


def test_decompress_gives_the_runs_own_network(
    compress: Compress, finished: Path, here: Path
) -> None:
    source = finished / "net.dcz"
    for name in ("a.pt", "a.safetensors", "a.onnx"):
        done = compress("decompress", source, "-o", name)
        size = (here / name).stat().st_size
        assert done.out == f"{name}: {size:,} bytes, from {source.stat().st_size:,}\n"
    tensors = artifact.read(source).tensors()
    for state in (torch.load(here / "a.pt"), load_file(here / "a.safetensors")):
        assert state.keys() == tensors.keys()
        assert all(np.array_equal(state[name].numpy(), tensors[name]) for name in tensors)
    assert (here / "a.onnx").read_bytes() == (finished / "net.onnx").read_bytes()
    session = onnxruntime.InferenceSession(here / "a.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"input": np.zeros((3, 1, 28, 28), np.float32)})
    assert y.shape == (3, 10)


def test_decompress_keeps_what_is_there_unless_forced(
    compress: Compress, finished: Path, here: Path
) -> None:
    (here / "a.pt").write_text("mine")
    refused = compress("decompress", finished / "net.dcz", "-o", "a.pt")
    assert refused.code == 1
    assert "a.pt exists: add --force" in refused.err
    assert (here / "a.pt").read_text() == "mine"
    assert compress("decompress", finished / "net.dcz", "-o", "a.pt", "--force").code == 0
    assert (here / "a.pt").read_text(errors="replace") != "mine"


def test_inspect_accounts_for_every_byte(compress: Compress, finished: Path) -> None:
    file = finished / "net.dcz"
    found = json.loads(compress("inspect", file, "--json").out)
    parts = sum(row["bytes"] for row in found["tensors"])
    assert parts + found["overhead_bytes"] + found["graph_bytes"] == file.stat().st_size
    assert found["bytes"] == file.stat().st_size
    assert found["metadata"]["network"] == "lenet-300-100"
    table = compress("inspect", file).out
    for row in found["tensors"]:
        assert row["name"] in table
        assert sum(row["parts"].values()) == row["bytes"]
        assert f"{row['bytes']:,}" in table


def test_verify_says_what_was_checked(compress: Compress, finished: Path) -> None:
    arguments = ("verify", finished / "net.dcz", "--against", finished / "net.onnx")
    said = compress(*arguments)
    assert said.code == 0
    assert "6 tensors, 266,610 weights" in said.out
    assert "the same bytes" in said.out
    found = json.loads(compress(*arguments, "--json").out)
    assert found["identical"]
    assert found["difference_absolute"] == 0.0


def test_an_artifact_without_its_graph(
    compress: Compress, dataless: tuple[Path, Outcome], here: Path
) -> None:
    file = dataless[0] / "net.dcz"
    assert json.loads(compress("verify", file, "--json").out)["graph"] is False
    assert compress("decompress", file, "-o", "a.pt").code == 0
    refused = compress("decompress", file, "-o", "a.onnx")
    assert refused.code == 1
    assert "--weights-only" in refused.err
    assert not (here / "a.onnx").exists()


# ---- stopping and going on ---------------------------------------------------------------------


def test_interrupted_at_every_stage_a_run_resumes_to_the_same_bytes(
    compress: Compress,
    shelf: Path,
    finished: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C just before each stage is marked as finished, in one chain of runs."""
    finish = Workspace.finish
    more: tuple[str, ...] = ()
    for interrupted in STAGES:

        def stop(self: Workspace, stage: str, report: Any, at: str = interrupted) -> None:
            if stage == at:
                raise KeyboardInterrupt
            finish(self, stage, report)

        monkeypatch.setattr(Workspace, "finish", stop)
        done = compress(*command(shelf), "-q", "-o", "out", *more)
        assert (done.code, done.out) == (130, "")
        assert done.err.strip() == GO_ON
        assert not list(here.rglob("*.part"))
        assert not (here / "out" / "net.dcz").exists()
        refused = compress(*command(shelf), "-q", "-o", "out")
        assert refused.code == 1
        assert "unfinished run: add --resume" in refused.err
        more = ("--resume",)
    monkeypatch.setattr(Workspace, "finish", finish)
    done = compress(*command(shelf), "-o", "out", "--resume", "--json")
    assert done.code == 0
    for stage in STAGES[:-1]:
        assert f"{stage}: finished earlier" in done.err
    assert outputs(here / "out") == outputs(finished)
    assert names(here / "out") == sorted([*OUTPUTS, "report.json", *PAGES])


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_real_interrupt_ends_a_real_run_with_one_line(shelf: Path, here: Path) -> None:
    arguments = [*command(shelf), "--epochs", 100_000, "-o", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "compressor", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background, a shell's children ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    notes = [process.stderr.readline() for _ in range(2)]
    assert notes == ["dense ...\n", "prune ...\n"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert [line for line in err.splitlines() if line and "epoch" not in line] == [GO_ON]
    assert (here / "out" / ".stages" / "dense.json").exists()
    assert not list(here.rglob("*.part"))


def test_an_interrupt_that_an_import_turned_into_something_else(
    compress: Compress, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy half imported recurses without end, for one."""

    def broken(*_: object, **__: object) -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("compressor.loading.load", broken)
    before = signal.getsignal(signal.SIGINT)
    done = compress(shelf / "net.pt", "--quantize", "5bit")
    assert (done.code, done.err) == (130, "error: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is before
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--seed", 1), "data, recipe"),  # which images are kept for validation
        (("--quantize", "4bit"), "recipe"),
        (("--data", "other.npz"), "data, recipe"),
        ((), "model"),
    ],
)
def test_resume_refuses_another_run_and_names_what_changed(
    compress: Compress,
    shelf: Path,
    finished: Path,
    here: Path,
    change: tuple[object, ...],
    named: str,
) -> None:
    with np.load(shelf / "data.npz") as arrays:
        np.savez(here / "other.npz", x=arrays["x"][::2], y=arrays["y"][::2])
    asked = command(shelf)
    if named == "model":
        state = torch.load(shelf / "net.pt")
        state["fc1.weight"][0, 0] += 1
        torch.save(state, here / "net.pt")
        asked[0] = "net.pt"
    before = outputs(finished)
    done = compress(*asked, *change, "-o", finished, "--resume")
    assert (done.code, done.out) == (1, "")
    assert f"is of another run ({named} changed)" in done.err
    assert "--force" in done.err
    assert outputs(finished) == before


def test_resume_takes_no_folder_of_somebody_else(
    compress: Compress, shelf: Path, here: Path
) -> None:
    (here / "out").mkdir()
    (here / "out" / "net.onnx").write_text("mine")
    done = compress(shelf / "net.pt", "--quantize", "5bit", "-o", "out", "--resume", "-q")
    assert done.code == 1
    assert "holds other files and no run to resume" in done.err
    assert names(here / "out") == ["net.onnx"]
    assert (here / "out" / "net.onnx").read_text() == "mine"


def test_resume_makes_lost_outputs_again(
    compress: Compress, shelf: Path, finished: Path, here: Path
) -> None:
    (here / "out").mkdir()
    for name in (*OUTPUTS[1:], "report.json"):  # all but the artifact
        (here / "out" / name).write_bytes((finished / name).read_bytes())
    done = compress(*command(shelf), "-q", "-o", "out", "--resume")
    assert (done.code, done.err) == (0, "")
    assert outputs(here / "out") == outputs(finished)


def test_resume_says_so_where_a_stage_was_damaged(
    compress: Compress, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Workspace, names: list[str], report: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "publish", stop)
    asked = (shelf / "net.pt", "--quantize", "3bit", "--threads", 1, "-q", "-o", "out")
    assert compress(*asked).code == 130
    (here / "out" / ".stages" / "share.safetensors").write_bytes(b"\x08" + bytes(20))
    done = compress(*asked, "--resume")
    assert done.code == 1
    assert "share.safetensors is damaged or gone: start over with --force" in done.err


def test_force_and_resume_exclude_each_other(compress: Compress, shelf: Path, here: Path) -> None:
    done = compress(shelf / "net.pt", "--quantize", "5bit", "--force", "--resume")
    assert done.code == 2
    assert "--force starts over and --resume continues" in done.err


# ---- train -------------------------------------------------------------------------------------


def test_train_writes_one_file_that_the_main_job_takes(
    compress: Compress, shelf: Path, here: Path
) -> None:
    asked = ("lenet-300-100", "--data", shelf / "data.npz", "--epochs", 2, "--seed", 5)
    training = ("train", *asked, "--threads", 1)
    said = compress(*training, "-o", "a.pt")
    assert said.code == 0
    assert re.fullmatch(
        r"a\.pt: lenet-300-100, epoch 2 \(the last\), seed 5: [\d.]+ % on validation, "
        r"[\d.]+ % on 40 test images\n",
        said.out,
    )
    quiet = compress(*training, "-o", "b.safetensors", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert names(here) == ["a.pt", "b.safetensors"]
    first, second = torch.load(here / "a.pt"), load_file(here / "b.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert compress("a.pt", "--quantize", "3bit", "--dry-run", "-q").code == 0


def test_train_without_validation_images_reports_none(
    compress: Compress, shelf: Path, here: Path
) -> None:
    training = ("train", "lenet-300-100", "--data", shelf / "data.npz", "--epochs", 1)
    said = compress(*training, "--validation", 0, "-o", "a.pt").out
    assert "validation" not in said
    assert "on 40 test images" in said


def test_interrupted_training_leaves_nothing(
    compress: Compress, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "_schedule", stop)
    training = ("train", "lenet-300-100", "--data", shelf / "data.npz", "--threads", 1)
    done = compress(*training)
    assert (done.code, done.out) == (130, "")
    assert done.err.strip() == "error: interrupted"
    assert list(here.iterdir()) == []
