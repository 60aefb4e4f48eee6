"""Everything that a user can get wrong: one clear line, the documented exit code, nothing left."""

import contextlib
import errno
import os
import pickle
import random
import sys
import types
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor import checkpoint
from compressor.errors import LoadError
from compressor.models import registry
from compressor.workspace import Workspace

Compress = Callable[..., Any]
Refuse = Callable[..., str]
State = dict[str, torch.Tensor]

QUANTIZE = ("--quantize", "3bit", "--threads", 1, "-q")


@pytest.fixture
def refuse(compress: Compress, here: Path) -> Refuse:
    """Run a command that must fail in the documented way; returns its line."""

    def run(*arguments: object, code: int = 1, says: str = "") -> str:
        before = sorted(here.rglob("*"))
        done = compress(*arguments)
        assert done.code == code, done.err
        assert done.out == ""
        theirs, _, line = done.err.removesuffix("\n").rpartition("\n")
        if theirs:  # what a user's own code raised, and none of ours
            assert " raised " in line
            assert theirs.startswith(("Traceback", '  File "')), done.err
            assert "/compressor/" not in theirs, done.err
        assert line.startswith("error: ")
        assert len(line) < 500
        assert says in line
        assert sorted(here.rglob("*")) == before, "something was left behind"
        return f"{line}\n"

    return run


@pytest.fixture(scope="module")
def state(shelf: Path) -> State:
    loaded: State = torch.load(shelf / "net.pt")
    return loaded


# ---- checkpoints -------------------------------------------------------------------------------


class Net(nn.Module):
    """A user's own network, for pickling."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc1(x.flatten(1))
        return logits


class Payload:
    """What loading a pickle can do: make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("run-by-the-pickle", "w"))


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


def spoilt(state: State, value: float) -> State:
    spoiled = {name: tensor.clone() for name, tensor in state.items()}
    spoiled["fc2.weight"][7, 7] = value
    return spoiled


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "net.pt is empty (0 bytes)"),
        (b"\n", "not a checkpoint, or only the beginning of one"),
        (b"P", "not a checkpoint, or only the beginning of one"),
        (b"hello, this is text\n" * 9, "not a checkpoint"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not a checkpoint"),
        (b'{"fc1.weight": [1, 2, 3]}', "not a checkpoint"),
        (random.Random(0).randbytes(5000), "not a checkpoint"),
        (b"\x89DCZ" + bytes(99), "compressed already; unpack it with: compress decompress"),
        (b"PK\x05\x06" + bytes(18), "damaged"),
        (pickle.dumps({"a": 1}, protocol=4), "damaged, or holds more than plain tensors"),
        ((10**9).to_bytes(8, "little") + b'{"a":', "damaged or cut short"),
    ],
)
def test_files_that_are_no_checkpoint(
    refuse: Refuse, here: Path, content: bytes, says: str
) -> None:
    (here / "net.pt").write_bytes(content)
    assert "net.pt" in refuse("net.pt", *QUANTIZE, says=says)


def test_paths_that_are_no_file(refuse: Refuse, here: Path) -> None:
    refuse("no/such.pt", *QUANTIZE, says="no/such.pt does not exist")
    refuse(here, *QUANTIZE, says="is a folder: give the checkpoint file in it")
    refuse("", *QUANTIZE, code=2, says="the name is empty")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [1, 9, 64, 400, 0.3, 0.9, 0.999, -1])
def test_files_that_are_cut_short(
    refuse: Refuse, state: State, here: Path, form: str, kept: float
) -> None:
    whole = saved(state, here / "whole", form).read_bytes()
    cut = whole[: int(kept * len(whole)) if isinstance(kept, float) else kept]
    (here / "net.pt").write_bytes(cut)
    line = refuse("net.pt", *QUANTIZE)
    assert "net.pt is damaged or cut short" in line or "only the beginning of one" in line


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damage_raises_nothing_but_load_errors(here: Path, form: str) -> None:
    """Bytes changed at random: read as tensors or refused, whatever unpickling comes upon."""
    draw = random.Random(form)
    tiny = {"fc.weight": torch.randn(3, 4), "fc.bias": torch.randn(3)}
    whole = saved(tiny, here / "whole", form).read_bytes()
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 2, 5, 20])):
            where = draw.randrange(draw.choice([len(whole), 120]))
            damaged[where] = draw.randrange(256)
        (here / "net.pt").write_bytes(damaged)
        with contextlib.suppress(LoadError):
            checkpoint.read(here / "net.pt")
            continue
        refused += 1
    assert refused > 50


def saved(state: State, path: Path, form: str) -> Path:
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_module_is_refused_with_its_class_named(
    refuse: Refuse, here: Path, legacy: bool
) -> None:
    torch.save(Net(), here / "net.pt", _use_new_zipfile_serialization=not legacy)
    line = refuse("net.pt", *QUANTIZE, says=f"{Net.__module__}.Net")
    assert "can run any code" in line
    assert "--trust-pickle" in line


@pytest.mark.parametrize("legacy", [False, True])
def test_a_refused_pickle_runs_no_code(refuse: Refuse, here: Path, legacy: bool) -> None:
    torch.save(
        {"state_dict": Payload()}, here / "net.pt", _use_new_zipfile_serialization=not legacy
    )
    refuse("net.pt", *QUANTIZE, says="io.open")
    assert not (here / "run-by-the-pickle").exists()


def test_a_trusted_module_is_taken(compress: Compress, refuse: Refuse, here: Path) -> None:
    torch.save(Net(), here / "net.pt")
    trusted = ("net.pt", *QUANTIZE, "--dry-run", "--trust-pickle")
    line = refuse(*trusted, says="Net does not tell its input size; add --input-shape 1,784")
    assert "CHANNELS" in line
    done = compress(*trusted, "--input-shape", "1,1,28,28")
    assert (done.code, done.err) == (0, "")
    # --arch is not passed over in silence
    refuse(*trusted, "--arch", "lenet-300-100", says="does not fit lenet-300-100: fc1.weight")


def test_a_trusted_modules_class_may_lie_in_the_working_directory(
    compress: Compress, here: Path
) -> None:
    (here / "their_nets.py").write_text(
        "from torch import nn\n"
        "class Theirs(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    code = "import torch, their_nets; torch.save(their_nets.Theirs(), 'net.pt')"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0
    done = compress("net.pt", *QUANTIZE, "--dry-run", "--trust-pickle", "--input-shape=1,1,28,28")
    assert (done.code, done.err) == (0, "")
    assert str(here) not in sys.path


def test_a_trusted_module_whose_code_is_gone(
    refuse: Refuse, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("Gone", (Net,), {"__module__": "gone_away"})
    module = types.ModuleType("gone_away")
    vars(module)["Gone"] = kind
    monkeypatch.setitem(sys.modules, "gone_away", module)
    torch.save(kind(), here / "net.pt")
    monkeypatch.delitem(sys.modules, "gone_away")
    refuse("net.pt", *QUANTIZE, says="holds a pickled gone_away.Gone")
    refuse("net.pt", *QUANTIZE, "--trust-pickle", says="whose code is not here (No module named")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda s: {}, "holds no tensor at all"),
        (lambda s: list(s.values()), "holds a list, not a state_dict"),
        (lambda s: s["fc1.weight"], "holds a Tensor, not a state_dict"),
        (lambda s: {"epoch": 3}, "entry 'epoch' is a int"),
        (lambda s: {"checkpoint": s}, "weights are looked for at the top and under state_dict"),
        (lambda s: {**s, "module.fc1.bias": s["fc1.bias"]}, "several tensors of one name"),
        (lambda s: spoilt(s, float("nan")), "fc2.weight contains NaN"),
        (lambda s: spoilt(s, float("inf")), "fc2.weight contains infinite values"),
        (lambda s: spoilt(s, -float("inf")), "fc2.weight contains infinite values"),
        (
            lambda s: spoilt({n: v.double() for n, v in s.items()}, 1e300),
            "fc2.weight contains infinite values",
        ),
        (lambda s: {n: v.to("meta") for n, v in s.items()}, "fc1.weight is not a dense tensor"),
        (lambda s: {n: v.to_sparse() for n, v in s.items()}, "fc1.weight is not a dense tensor"),
        (lambda s: {n: v.cfloat() for n, v in s.items()}, "fc1.weight is not a dense tensor"),
        (lambda s: {n: v.char() for n, v in s.items()}, "fc1.weight is torch.int8"),
        (
            lambda s: {**s, "fc2.weight": torch.zeros(99, 300)},
            "the closest is lenet-300-100, but fc2.weight has shape (99, 300), not (100, 300)",
        ),
        (lambda s: without(s, "fc3.bias"), "fc3.bias of shape (10,) is missing from the file"),
        (
            lambda s: {**s, "fc4.weight": torch.zeros(3)},
            "the closest is lenet-300-100, but the file also has fc4.weight of shape (3,)",
        ),
        (lambda s: {"a.w": torch.zeros(3)}, "share no tensor name with any known architecture"),
    ],
)
def test_checkpoints_of_the_wrong_content(
    refuse: Refuse, state: State, here: Path, make: Callable[[State], Any], says: str
) -> None:
    torch.save(make(state), here / "net.pt")
    refuse("net.pt", *QUANTIZE, says=says)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: s["fc1.bias"]}}, "a": 1},
        lambda s: {"model_state_dict": {f"module.{n}": v for n, v in s.items()}},
        lambda s: {"model": {f"module._orig_mod.{n}": v for n, v in s.items()}},
        lambda s: {"net": {f"_orig_mod.module.{n}": v for n, v in s.items()}},
        lambda s: {f"_orig_mod.{n}": v for n, v in s.items()},
        lambda s: {n: nn.Parameter(v) for n, v in s.items()},
        lambda s: {n: v.half() for n, v in s.items()},
        lambda s: {n: v.bfloat16() for n, v in s.items()},
        lambda s: {n: v.double() for n, v in s.items()},
    ],
)
def test_checkpoints_that_are_taken(
    compress: Compress, state: State, here: Path, make: Callable[[State], Any]
) -> None:
    torch.save(make(state), here / "net.pt")
    done = compress("net.pt", *QUANTIZE, "--dry-run")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_the_content_decides_the_form_not_the_name(
    compress: Compress, state: State, here: Path, name: str, form: str
) -> None:
    saved(state, here / name, form)
    assert compress(name, *QUANTIZE, "--dry-run").code == 0


def test_files_of_other_tools(refuse: Refuse, here: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    example = torch.zeros(2, 1, 2, 2)
    torch.export.save(torch.export.export(net, (example,)), here / "net.pt2")
    whole = (here / "net.pt2").read_bytes()
    (here / "net.pt2").write_bytes(whole[: len(whole) // 2])
    refuse("net.pt2", *QUANTIZE, says="net.pt2 is damaged")
    # A TorchScript archive by its layout alone.
    torch.save(net.state_dict(), here / "net.pt")
    with zipfile.ZipFile(here / "net.pt", "a") as archive:
        archive.writestr("net/constants.pkl", b"")
    refuse("net.pt", *QUANTIZE, says="net.pt is damaged or cut short")


def test_weights_that_fit_two_architectures(
    refuse: Refuse, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.ARCHITECTURES["lenet-300-100"]
    twin = registry.Architecture("twin", entry.factory, (1, 28, 28), 10, "the same again")
    monkeypatch.setitem(registry.ARCHITECTURES, "twin", twin)
    line = refuse(shelf / "net.pt", *QUANTIZE, says="fit lenet-300-100 and twin alike")
    assert "--arch lenet-300-100 or --arch twin" in line


# ---- architectures -----------------------------------------------------------------------------

THEIRS = """
from torch import nn

print("a print of the user's own")

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
build.input_shape = (1, 28, 28)

def shapeless():
    return build()

def misshapen():
    return build()
misshapen.input_shape = (3, 5, 5)

def nonsense():
    return build()
nonsense.input_shape = "1,28,28"

class Two(nn.Module):
    input_shape = (1, 28, 28)
    def __init__(self):
        super().__init__()
        self.add_module("1", nn.Linear(784, 10))
    def forward(self, x):
        return "no tensor"

def text():
    return "a network"

def takes(width):
    return nn.Linear(width, 3)

def fails():
    return 1 / 0

def leaves():
    raise SystemExit(5)

number = 3
"""
FAILS, LEAVES = (
    THEIRS.split("\n").index(code) + 1 for code in ("    return 1 / 0", "    raise SystemExit(5)")
)
QUIETER = THEIRS.replace('print("a print of the user\'s own")', "")


@pytest.mark.parametrize(
    ("arch", "code", "says"),
    [
        ("lenet", 1, "no architecture is called 'lenet'; did you mean lenet5"),
        ("", 1, "no architecture is called ''"),
        ("LeNet5", 1, "did you mean lenet5"),
        ("lenet5", 1, "does not fit lenet5: conv1.weight of shape (20, 1, 5, 5) is missing"),
        ("torchvision:resnet81", 1, "--arch torchvision:resnet81: torchvision has no such"),
        ("torchvision:", 1, "torchvision has no such"),
        ("torchvision:resnet18", 1, "does not fit torchvision:resnet18: conv1.weight"),
        ("missing.py:build", 1, "there is no file missing.py"),
        ("theirs.py", 1, "lacks the function: give theirs.py:FUNCTION"),
        ("theirs.py:nothere", 1, "defines no function or class 'nothere'"),
        ("theirs.py:number", 1, "defines no function or class 'number'"),
        ("theirs.py:text", 1, "returned a str, not a torch.nn.Module"),
        ("theirs.py:takes", 1, "raised TypeError: takes() missing 1 required"),
        ("theirs.py:fails", 1, f"raised ZeroDivisionError: division by zero (line {FAILS})"),
        ("theirs.py:leaves", 1, f"raised SystemExit: 5 (line {LEAVES})"),
        ("theirs.py:shapeless", 1, "does not tell its input size; add --input-shape 1,784"),
        ("theirs.py:nonsense", 1, "does not tell its input size; add --input-shape 1,784"),
        ("theirs.py:misshapen", 1, "does not run on an input of shape (1, 3, 5, 5)"),
        ("theirs.py:Two", 1, "gives a str without any tensor"),
        ("broken.py:build", 1, "raised SyntaxError"),
        ("raising.py:build", 1, "raising.py raised ValueError: two lines (line 2)"),
        ("net.pt:build", 1, "net.pt is not a Python file"),
    ],
)
def test_architectures_that_cannot_be(
    refuse: Refuse,
    here: Path,
    shelf: Path,
    capsys: pytest.CaptureFixture[str],
    arch: str,
    code: int,
    says: str,
) -> None:
    (here / "theirs.py").write_text(QUIETER)
    (here / "broken.py").write_text("def build(:\n")
    (here / "raising.py").write_text("import torch\nraise ValueError('two\\nlines')\n")
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    torch.save(module.state_dict(), here / "net.pt")
    refuse("net.pt", "--arch", arch, *QUANTIZE, code=code, says=says)


def test_what_a_users_file_prints_stays_off_stdout(compress: Compress, here: Path) -> None:
    (here / "theirs.py").write_text(THEIRS)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    torch.save(module.state_dict(), here / "net.pt")
    done = compress("net.pt", "--arch", "theirs.py:build", *QUANTIZE, "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert done.err == "a print of the user's own\n"


@pytest.mark.parametrize("function", ["build", "later"])
def test_a_users_file_may_import_its_own_models_package(
    compress: Compress, here: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """At its top and when it is called; ours, of the same name, is not in the way."""
    project = here / "project"
    (project / "models").mkdir(parents=True)
    (project / "models" / "__init__.py").write_text("from .net import Net\n")
    (project / "models" / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    (project / "models" / "late.py").write_text("from models.net import Net as Late\n")
    (project / "file.py").write_text(
        "from models import Net\n"
        "def build():\n    return Net()\n"
        "def later():\n    from models.late import Late\n    return Late()\n"
        "build.input_shape = later.input_shape = (1, 28, 28)\n"
    )
    for name in [name for name in sys.modules if name.partition(".")[0] in ("models", "file")]:
        monkeypatch.delitem(sys.modules, name)
    path = list(sys.path)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    torch.save(module.state_dict(), here / "net.pt")
    done = compress("net.pt", "--arch", f"project/file.py:{function}", *QUANTIZE, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert sys.path == path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("models", "file")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_network_of_torchvision(compress: Compress, here: Path) -> None:
    from torchvision import models

    torch.save(models.squeezenet1_1(num_classes=10).state_dict(), here / "net.pt")
    done = compress("net.pt", "--arch", "torchvision:squeezenet1_1", *QUANTIZE, "--dry-run")
    assert done.code == 1  # its classifier is a convolution: the number of classes stays unknown
    torch.save(models.shufflenet_v2_x0_5(num_classes=7).state_dict(), here / "net.pt")
    done = compress("net.pt", "--arch", "torchvision:shufflenet_v2_x0_5", *QUANTIZE, "--dry-run")
    assert (done.code, done.err) == (0, "")


# ---- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "code", "says"),
    [
        *(
            (text, 2, "1bit to 16bit")
            for text in ("0bit", "17bit", "abc", "5.5bit", "-3bit", "nan")
        ),
        *((text, 2, "PATTERN=VALUE") for text in ("", "fc=", "=5", "5bit,")),
        ("fc1=3bit,fc2=0bit", 2, "--quantize is '0bit'"),
        ("nope=5bit", 1, "no layer is called 'nope': use conv, fc or a pattern on the 3 layer"),
        ("FC1=5bit", 1, "no layer is called 'FC1'"),
        ("conv=5bit", 1, "conv fits no layer of this network: it has fc1, fc2, fc3"),
    ],
)
def test_widths(refuse: Refuse, shelf: Path, bits: str, code: int, says: str) -> None:
    refuse(shelf / "net.pt", f"--quantize={bits}", "-q", code=code, says=says)


@pytest.mark.parametrize(
    ("sensitivity", "code", "says"),
    [
        *((text, 2, "number between 0 and") for text in ("-1", "nan", "inf", "-inf", "abc", "1e7")),
        *((text, 2, "PATTERN=VALUE") for text in ("", "fc=", "=1", "1,")),
        ("100", 1, "fc1 would vanish: all its 235,200 weights are below the threshold"),
        ("0.5,fc2=50", 1, "fc2 would vanish: all its 30,000 weights"),
        ("0.5,fc9=1", 1, "no layer is called 'fc9'"),
        ("layer1.*=1", 1, "no layer is called 'layer1.*'"),
    ],
)
def test_sensitivities(refuse: Refuse, shelf: Path, sensitivity: str, code: int, says: str) -> None:
    asked = (f"--prune-sensitivity={sensitivity}", "-q")
    refuse(shelf / "net.pt", *asked, code=code, says=says)


@pytest.mark.parametrize(
    ("sparsity", "code", "says"),
    [
        *((text, 2, "it is the fraction of weights to prune") for text in ("0", "1", "fc1=1")),
        *((t, 2, "number between 0 and 1") for t in ("1.01", "-1", "nan", "inf", "abc", "fc1=-1")),
        *((text, 2, "PATTERN=VALUE") for text in ("", "fc=", "=1", "0.5,")),
        ("0.9999", 1, "fc3 would vanish: all its 1,000 weights would be pruned"),
        ("0.5,fc9=0.5", 1, "no layer is called 'fc9'"),
        ("conv=0.5", 1, "conv fits no layer of this network: it has fc1, fc2, fc3"),
    ],
)
def test_sparsities(refuse: Refuse, shelf: Path, sparsity: str, code: int, says: str) -> None:
    refuse(shelf / "net.pt", f"--sparsity={sparsity}", "-q", code=code, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sparsity=0.9", "--prune-sensitivity=1"), "give one of sensitivity (--prune-sensi"),
        (("--sparsity=0.9", "--scope=all"), "--scope is 'all': it must be one of layer, global"),
        (("--sparsity=0.9", "--schedule=slow"), "--schedule is 'slow': it must be one of rounds"),
        (("--sparsity=0.9", "--rounds=0"), "--rounds is 0: it must be a whole number"),
        (("--sparsity=fc1=0.5,fc2=0.9", "--global"), "takes one sparsity for all layers"),
        (("--sparsity=0.9", "--global", "--scope=erk"), "--global and --scope erk: give one"),
        (("--prune-sensitivity=1", "--scope=lamp"), "--scope lamp goes by sparsity, not by sens"),
        (("--prune-sensitivity=1", "--schedule=movement"), "movement goes by sparsity"),
        (("--sparsity=0.9", "--schedule=movement"), "movement needs data: give --data"),
        (("--sparsity=0.9", "--schedule=gradual", "--rounds=3"), "prunes within one retraining"),
        (("--sparsity=0.9", "--schedule=movement", "--scope=lamp"), "is made for magnitudes"),
        (("--sparsity=0.9", "--schedule=movement", "--epochs=0"), "needs retraining"),
        (("--sparsity=0.9", "--schedule=movement", "--set=prune.ramp=0"), "prune.ramp is 0"),
        (("--sparsity=0.9", "--schedule=splicing", "--set=prune.ramp=0.9"), "together at most 1"),
        (("--sparsity=0.9", "--set=prune.retrain.rewind=3"), "prune.retrain.rewind is 3: it is"),
        (("--schedule=gradual", "--quantize=5bit"), "without --prune-sensitivity or --sparsity"),
    ],
)
def test_ways_to_prune_that_do_not_go_together(
    refuse: Refuse, shelf: Path, arguments: tuple[str, ...], says: str
) -> None:
    refuse(shelf / "net.pt", "-q", *arguments, code=2, says=says)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--threads", 0), 2, "--threads is 0: it must be a whole number between 1 and 1,024"),
        (("--threads", "two"), 2, "'two' is not a valid integer"),
        (("--seed", -1), 2, "--seed is -1: it must be a whole number between 0 and 4,294,967,295"),
        (("--seed", 2**32), 2, "--seed is 4294967296"),
        (("--device", "nonsense"), 2, "--device nonsense: give cpu, cuda or cuda:N"),
        (("--device", "mps"), 2, "--device mps: give cpu, cuda or cuda:N"),
        (("--device", ""), 2, "give cpu, cuda or cuda:N"),
        (("--device", "cpu:3"), 2, "the last one here is cpu:0"),
        (("--input-shape", "abc"), 2, "give all sizes, a batch of 1 first, such as 1,3,224,224"),
        (("--input-shape", ""), 2, "give all sizes"),
        (("--input-shape", "28"), 2, "give all sizes"),
        (("--input-shape", "1,0,28,28"), 2, "give all sizes"),
        (("--input-shape", "8,1,28,28"), 2, "give all sizes"),
        (("--input-shape", "1,1,28,99999999"), 2, "input_shape is 99999999"),
        (("--input-shape", "1,3,32,32"), 1, "does not run on an input of shape (1, 3, 32, 32)"),
        (("--input-shape", "1,1048576,1048576,1048576"), 1, "not enough memory"),
        (("--epochs", 3), 2, "--epochs has no effect without --channels, --prune-sens"),
        (("--finetune-epochs", -1), 2, "--finetune-epochs is -1"),
        (("--mean", "0.5", "--std", "0.5"), 2, "--mean has no effect without --data"),
        (("-o", ""), 2, "the name is empty"),
        (("--save-recipe", ""), 2, "the name is empty"),
        (("--set", "nonsense"), 2, "give KEY=VALUE, such as prune.retrain.lr=0.01"),
        (("--set", "nope=3"), 2, "unknown setting 'nope'; it may hold channels, prune"),
        (("--set", "share.nope=3"), 2, "share: unknown setting 'nope'; it may hold bits, init"),
        (("--set", "seed=x"), 2, "seed is 'x': it must be a whole number"),
        (("--set", "seed.x=3"), 2, "seed is a value, not a section"),
        (("--set", "prune=0.5"), 2, "prune must be a section"),
        (("--set", "prune.rounds=2"), 2, "no effect without --prune-sensitivity"),
        (("--set", "data.validation=0.2"), 2, "no effect without --data"),
        (("--set", "share.init=best"), 2, "share.init is 'best': it must be one of linear"),
        (("--set", "share.finetune.lr=-1"), 2, "share.finetune.lr is -1.0"),
        (("--set", "encode.graph=maybe"), 2, "encode.graph is 'maybe'"),
        (("--set", "export.opset=5"), 2, "export.opset is 5: it must be a whole number between 18"),
        (("--recipe", "nope"), 1, "recipe nope cannot be read (no such file or directory)"),
    ],
)
def test_settings_that_cannot_be(
    refuse: Refuse, shelf: Path, arguments: tuple[object, ...], code: int, says: str
) -> None:
    refuse(shelf / "net.pt", *QUANTIZE, *arguments, code=code, says=says)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(refuse: Refuse, shelf: Path) -> None:
    asked = (shelf / "net.pt", *QUANTIZE, "--device", "cuda")
    refuse(*asked, code=2, says="finds no CUDA device; use --device cpu")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[share", "r.toml is not valid TOML"),
        ("", "nothing to do"),
        ("[nope]", "r.toml: unknown setting 'nope'; it may hold channels, prune"),
        ("[share]\nbit = 5", "r.toml: share: unknown setting 'bit'"),
        ("[share]\nbits = true", "r.toml: share.bits is True"),
        ("[share]\nbits = {fc = 'wide'}", "r.toml: share.bits is 'wide'"),
        ("share = 5", "r.toml: share must be a section"),
        ("[[share]]\nbits = 3", "r.toml: share must be a section"),
        ("seed = true\n[share]", "r.toml: seed is True"),
        ("seed = [1]\n[share]", "r.toml: seed is [1]"),
        ("arch = 5\n[share]", "r.toml: arch is 5"),
        ("input_shape = 5\n[share]", "r.toml: input_shape is 5: it must be a list"),
        ("input_shape = []\n[share]", "r.toml: input_shape is empty"),
        ("data = 'mnist'\n[share]", "r.toml: data must be a section"),
        ("[share]\n[data]\nvalidation = 0.5", "r.toml: data: spec is missing"),
        ("[share]\n[data]\nspec = 'x'\nmean = 0.5", "r.toml: data.mean is 0.5: it must be a list"),
        ("[share.finetune]\nepochs = inf", "r.toml: share.finetune.epochs is inf"),
    ],
)
def test_recipe_files_that_cannot_be(
    refuse: Refuse, shelf: Path, here: Path, text: str, says: str
) -> None:
    (here / "r.toml").write_text(text)
    refuse(shelf / "net.pt", "--recipe", "r.toml", code=2, says=says)


def test_recipe_files_that_are_no_text(refuse: Refuse, shelf: Path) -> None:
    asked = (shelf / "net.pt", "--recipe", shelf / "net.pt")
    refuse(*asked, says="cannot be read (not a text file): give a TOML file or one of")
    refuse("recipe", shelf, says="cannot be read (is a directory)")


# ---- data --------------------------------------------------------------------------------------


def images(path: Path, *shape: int, classes: int = 10) -> Path:
    x = np.random.default_rng(0).integers(0, 256, (60, *shape), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(60) % classes)
    return path


@pytest.mark.parametrize(
    ("shape", "classes", "says"),
    [
        ((20, 28), 10, "the images are (1, 20, 28) (channels, height, width), the network takes"),
        ((3, 28, 28), 10, "the images are (3, 28, 28)"),
        ((28, 28), 11, "gives (1, 10) for one image, but d has 11 classes"),
    ],
)
def test_data_for_another_network(
    refuse: Refuse, shelf: Path, here: Path, shape: tuple[int, ...], classes: int, says: str
) -> None:
    images(here / "d.npz", *shape, classes=classes)
    refuse(shelf / "net.pt", *QUANTIZE, "--data", "d.npz", says=says)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--data", "nope"), 1, "no data set is called 'nope' and no folder either; give mnist"),
        (("--data", ""), 1, "no data set is called ''"),
        (("--data", "nope.npz"), 1, "nope.npz cannot be read"),
        (("--data", "cut.npz"), 1, "cut.npz is no .npz file"),
        (("--data", "theirs.py"), 1, "lacks the function: give theirs.py:FUNCTION"),
        (("--data", "theirs.py:number"), 1, "defines no function or class 'number'"),
        (("--data", "theirs.py:text"), 1, "must return (train, test), not a str"),
        (
            ("--data", "theirs.py:fails"),
            1,
            f"raised ZeroDivisionError: division by zero (line {FAILS})",
        ),
        (("--data", "d.npz", "--mean", "0.5"), 2, "mean and std go together"),
        (("--data", "d.npz", "--mean", "x", "--std", "1"), 2, "--mean is 'x'"),
        (("--data", "d.npz", "--mean", "1,1", "--std", "1,1"), 2, "each of 1 channels"),
        (("--data", "d.npz", "--mean", "1", "--std", "0"), 2, "above 0"),
        (("--data", "d.npz", "--mean", "nan", "--std", "1"), 2, "--mean is 'nan'"),
        (("--data", "d.npz", "--input-shape", "1,784"), 2, "--data needs a network for images"),
    ],
)
def test_data_that_cannot_be(
    refuse: Refuse, shelf: Path, here: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    whole = images(here / "d.npz", 28, 28).read_bytes()
    (here / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (here / "theirs.py").write_text(QUIETER)
    refuse(shelf / "net.pt", *QUANTIZE, *arguments, code=code, says=says)


def test_a_data_set_that_is_absent(
    refuse: Refuse, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to the host, and " + "much more to say " * 50)

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("COMPRESS_DATA_ROOT", str(here / "nowhere"))
    line = refuse(shelf / "net.pt", *QUANTIZE, "--data", "mnist", says="data set mnist is absent")
    assert "--data-root" in line
    assert len(line) < 400


# ---- outputs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(compress: Compress, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "out"
    assert compress(shelf / "net.pt", *QUANTIZE, "-o", folder).code == 0
    return folder


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("file", "file is a file: choose another folder with -o"),
        ("full", "full exists and is not empty: add --force to overwrite, or choose another"),
        ("file/below", "cannot write file/below: not a directory"),
        ("x" * 300, "file name too long"),
    ],
)
def test_output_folders_that_cannot_be(
    refuse: Refuse, shelf: Path, here: Path, output: str, says: str
) -> None:
    (here / "file").write_text("mine")
    (here / "full").mkdir()
    (here / "full" / "mine").write_text("mine")
    refuse(shelf / "net.pt", *QUANTIZE, "-o", output, says=says)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody writes")
def test_places_where_nobody_may_write(refuse: Refuse, shelf: Path, here: Path) -> None:
    net = shelf / "net.pt"
    refuse(net, *QUANTIZE, "-o", "/proc/out", says="cannot write /proc/out")
    refuse(net, *QUANTIZE, "--save-recipe", "/proc/r.toml", says="cannot write /proc/r.toml")
    training = ("train", "lenet5", "--data", shelf / "data.npz")
    refuse(*training, "-o", "/proc/net.pt", says="cannot write /proc/net.pt")


def test_saving_a_recipe_keeps_what_is_there(
    compress: Compress, refuse: Refuse, shelf: Path, here: Path
) -> None:
    (here / "mine.toml").write_text("mine")
    asked = (shelf / "net.pt", *QUANTIZE, "--dry-run", "--save-recipe")
    refuse(*asked, "mine.toml", says="mine.toml: the file exists; add --force")
    assert (here / "mine.toml").read_text() == "mine"
    assert compress(*asked, "mine.toml", "--force").code == 0
    assert compress(*asked, "mine.toml").code == 0  # the same recipe: nothing to lose
    refuse(*asked, "no/such/folder.toml", says="cannot write no/such/folder.toml")
    refuse(*asked, here, "--force", says="it is a folder")


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From the write number ``after`` on there is no space left."""
    left = [after]
    sync = os.fsync

    def fsync(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_disk_full_before_the_work_leaves_no_folder(
    refuse: Refuse, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, 0)
    line = refuse(shelf / "net.pt", *QUANTIZE, "-o", "deep/down/out", says="the disk is full")
    assert "deep/down/out" in line


def test_a_disk_full_during_the_work_keeps_what_can_be_resumed(
    compress: Compress, shelf: Path, made: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space for 4 writes, then for 5 after clearing up, and so on; resumed each time."""
    failures = 0
    more: tuple[str, ...] = ()
    while True:
        with monkeypatch.context() as patch:
            full_disk(patch, 4 + failures)
            done = compress(shelf / "net.pt", *QUANTIZE, "-o", "out", *more)
        if done.code == 0:
            break
        failures += 1
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: cannot write out/")
        assert done.err.endswith(": the disk is full\n")
        assert not list(here.rglob("*.part"))
        assert failures < 10
        more = ("--resume",)
    assert failures > 2
    for name in ("net.dcz", "net.onnx", "recipe.toml"):
        assert (here / "out" / name).read_bytes() == (made / name).read_bytes()
    assert not (here / "out" / ".stages").exists()


def test_a_stage_that_fails_ends_with_one_line(
    compress: Compress, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory, by either of its names in torch."""

    def exhausted(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't alloc")

    monkeypatch.setattr(Workspace, "save", exhausted)
    done = compress(shelf / "net.pt", *QUANTIZE)
    assert done.code == 1
    assert done.err == "error: not enough memory for this network and its data\n"


# ---- artifacts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("inspect",), ("inspect", "--json"), ("verify",), ("decompress", "-o", "x.pt")],
)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: b"", "x.dcz: the file is empty"),
        (lambda b: b[:3], "x.dcz: the file is truncated"),
        (lambda b: b[:100], "x.dcz: the file is truncated"),
        (lambda b: b[: len(b) // 2], "x.dcz: the file is truncated"),
        (lambda b: b[:-1], "x.dcz: the file is truncated"),
        (lambda b: b + b"x", "1 bytes too many"),
        (lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], "damaged"),
        (lambda b: b"just text, and more of it", "is not a .dcz artifact"),
        (None, "x.dcz: no such file or directory"),
    ],
)
def test_damaged_artifacts(
    refuse: Refuse,
    made: Path,
    here: Path,
    command: tuple[str, ...],
    damage: Callable[[bytes], bytes] | None,
    says: str,
) -> None:
    if damage is not None:
        (here / "x.dcz").write_bytes(damage((made / "net.dcz").read_bytes()))
    refuse(command[0], "x.dcz", *command[1:], says=says)


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("x.txt", 2, "-o x.txt: the name must end in .pt, .safetensors, .onnx"),
        ("x", 2, "the name must end in"),
        ("", 2, "the name is empty"),
        ("no/such/x.pt", 1, "cannot write no/such/x.pt: no such file or directory"),
        ("folder.pt", 1, "folder.pt exists"),
    ],
)
def test_targets_that_cannot_be(
    refuse: Refuse, made: Path, here: Path, target: str, code: int, says: str
) -> None:
    (here / "folder.pt").mkdir()
    refuse("decompress", made / "net.dcz", "-o", target, code=code, says=says)
    refuse("decompress", made / "net.dcz", "-o", "folder.pt", "--force", says="it is a folder")


def other_network(classes: int) -> onnx.ModelProto:
    """(N, 1, 28, 28) -> (N, classes), all zeros."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.zeros((784, classes), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", kind, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("y", kind, ["n", classes])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_verify_against_what_is_not_the_network(refuse: Refuse, made: Path, here: Path) -> None:
    onnx.save(other_network(10), here / "other.onnx")
    onnx.save(other_network(7), here / "classes.onnx")
    (here / "text.onnx").write_text("this is text")
    (here / "empty.onnx").write_bytes(b"")
    for name, says in (
        ("other.onnx", "other.onnx is not what the artifact decodes to: outputs differ by"),
        ("classes.onnx", "classes.onnx is another network: 4 inputs give outputs of shape (4, 7)"),
        ("text.onnx", "text.onnx: ONNX Runtime cannot load the file"),
        ("empty.onnx", "empty.onnx: ONNX Runtime cannot load the file"),
        ("absent.onnx", "absent.onnx cannot be read: no such file or directory"),
        (".", "cannot be read: is a directory"),
    ):
        refuse("verify", made / "net.dcz", "--against", name, says=says)


# ---- train -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("lenet5",), 2, "training needs --data, for example --data mnist"),
        (("lenet6", "--data", "d.npz"), 1, "no architecture is called 'lenet6'; did you mean"),
        (("theirs.py:shapeless", "--data", "d.npz"), 2, "set FUNCTION.input_shape = (C, H, W)"),
        (("theirs.py:misshapen", "--data", "d.npz"), 1, "does not run on an input of shape"),
        (("theirs.py:fails", "--data", "d.npz"), 1, "ZeroDivisionError"),
        (("theirs.py:build", "--data", "d11.npz"), 1, "d11 has 11 classes"),
        (("lenet5", "--data", "nope"), 1, "no data set is called 'nope'"),
        (("resnet20", "--data", "d.npz"), 1, "the images are (1, 28, 28)"),
        (("lenet5", "--data", "d.npz", "-o", "d.npz"), 1, "d.npz exists: add --force"),
        (("lenet5", "--data", "d.npz", "-o", "x.txt"), 2, "must end in .pt, .pth or .safetensors"),
        (("lenet5", "--data", "d.npz", "-o", "no/x.pt"), 1, "there is no folder no"),
        (("lenet5", "--data", "d.npz", "-o", "dir.pt", "--force"), 1, "it is a folder"),
        (("lenet5", "--data", "d.npz", "-o", ""), 2, "the name is empty"),
        (("lenet5", "--data", "d.npz", "--epochs", "-1"), 2, "--epochs is -1"),
        (("lenet5", "--data", "d.npz", "--lr", "nan"), 2, "--lr is nan: it must be a number"),
        (("lenet5", "--data", "d.npz", "--batch-size", "0"), 2, "--batch-size is 0"),
        (("lenet5", "--data", "d.npz", "--optimizer", "lion"), 2, "must be one of sgd, adam"),
        (("lenet5", "--data", "d.npz", "--validation", "2"), 2, "--validation is 2.0"),
        (("lenet5", "--data", "d.npz", "--mean", "1"), 2, "mean and std go together"),
        (("lenet5", "--data", "d.npz", "--seed", "-1"), 2, "-1 is not in the range"),
        (("lenet5", "--data", "d.npz", "--threads", "0"), 2, "0 is not in the range"),
        (("lenet5", "--data", "d.npz", "--device", "tpu"), 2, "give cpu, cuda or cuda:N"),
        (("lenet5", "--data", "d.npz", "--nope"), 2, "No such option '--nope'"),
    ],
)
def test_training_that_cannot_be(
    refuse: Refuse, here: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    images(here / "d.npz", 28, 28)
    images(here / "d11.npz", 28, 28, classes=11)
    (here / "dir.pt").mkdir()
    (here / "theirs.py").write_text(QUIETER)
    refuse("train", *arguments, code=code, says=says)


def test_training_that_diverges(refuse: Refuse, here: Path) -> None:
    x = np.full((60, 28, 28), 1e30, np.float32)
    np.savez(here / "d.npz", x=x, y=np.arange(60) % 10)
    asked = ("lenet-300-100", "--data", "d.npz", "--mean", 0, "--std", 1, "-q", "--threads", 1)
    refuse("train", *asked, "--epochs", 3, says="try a lower learning rate than 0.05")
