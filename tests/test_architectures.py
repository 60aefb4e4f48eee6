"""``--arch``: every way to name a network, with arguments, from any repository."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor import api, architectures, loading
from compressor.errors import ArtifactError, LoadError, UsageError

Compress = Callable[..., Any]
QUANTIZE = ("--quantize", "3bit", "--threads", 1, "-q")

NET = """
from torch import nn
{imports}
def build(width=4, num_classes=10, bias=True, name="x"):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Linear(width, num_classes, bias))
build.input_shape = (1, 4, 4)
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No test finds the modules that another one's repository brought in."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in ("models", "utils", "nets", "mine"):
            del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def weights(here: Path, width: int = 4, classes: int = 10) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Linear(width, classes))
    torch.save(net.state_dict(), here / "net.pt")


@pytest.mark.parametrize(
    ("items", "written"),
    [
        (["width=0.5"], "f.py:build(width=0.5)"),
        (["name=text", "deep=True"], 'f.py:build(name="text", deep=true)'),
        (["sizes=[1, 2]", "x = -3"], "f.py:build(sizes=[1, 2], x=-3)"),
    ],
)
def test_arguments_are_part_of_the_name(items: list[str], written: str) -> None:
    assert architectures.with_arguments("f.py:build", items) == written
    # A second round adds to what is there, and the last word counts.
    twice = architectures.with_arguments(written, [items[0]])
    assert twice == written
    assert architectures.with_arguments("m:f(a=1)", ["a=2"]) == "m:f(a=2)"


@pytest.mark.parametrize("item", ["width", "=1", "a b=1", "x=nan", "x={a = 1}", "x=1979-05-27"])
def test_arguments_that_cannot_be(item: str) -> None:
    with pytest.raises(UsageError, match="--arch-arg"):
        architectures.with_arguments("f.py:build", [item])


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("lenet5", True),
        ("torchvision:resnet18", True),
        ("timm:resnet18.a1_in1k", True),
        ('timm:resnet18(checkpoint_path="x")', False),
        ("torchvision:resnet18(weights=1)", False),
        ("f.py:build", False),
        ("os:getcwd", False),
        ("Net", False),
    ],
)
def test_a_files_own_word_runs_no_code(name: str, safe: bool) -> None:
    assert architectures.runs_no_code(name) is safe


def test_an_artifact_that_names_code_is_not_followed(compress: Compress, here: Path) -> None:
    write(here, {"mine.py": NET.format(imports="")})
    weights(here)
    assert compress("net.pt", "--arch", "mine.py:build", *QUANTIZE).code == 0
    with pytest.raises((LoadError, ArtifactError), match=r"not known here .*: give arch="):
        api.load("net-compressed/net.dcz")
    loaded = api.load("net-compressed/net.dcz", arch="mine.py:build")
    assert loaded(torch.zeros(2, 1, 4, 4)).shape == (2, 10)


def test_arguments_reach_the_function_and_the_recipe(compress: Compress, here: Path) -> None:
    write(here, {"mine.py": NET.format(imports="")})
    weights(here, width=7, classes=3)
    done = compress("net.pt", "--arch", "mine.py:build", "--arch-arg", "width=7", *QUANTIZE)
    assert (done.code, done.err) == (0, "")  # and the number of classes is the checkpoint's
    recipe = (here / "net-compressed" / "recipe.toml").read_text()
    assert 'arch = "mine.py:build(width=7)"' in recipe
    again = ("net.pt", "--recipe", "net-compressed/recipe.toml", "-o", "again", "-q")
    assert compress(*again).code == 0
    first, second = (here / f / "net.dcz" for f in ("net-compressed", "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--arch-arg", "width=7"), 2, "--arch-arg has no effect without --arch"),
        (("--arch", "lenet5", "--arch-arg", "w=7"), 1, "lenet5 takes no arguments"),
        (("--arch", "mine.py:build", "--arch-arg", "w=7"), 1, "unexpected keyword argument 'w'"),
        (("--arch", "mine.py:build(width=)"), 1, "the arguments cannot be read"),
        (("--arch", "torchvision:resnet18(widht=2)"), 1, "cannot be built: "),
        (("--arch", "no.such:build"), 1, "no module no is installed or in this folder"),
        (("--arch", "mine:nothing"), 1, "mine defines no function or class 'nothing'"),
    ],
)
def test_arguments_and_names_that_fit_nothing(
    compress: Compress, here: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    write(here, {"mine.py": NET.format(imports="")})
    weights(here)
    done = compress("net.pt", *arguments, *QUANTIZE)
    assert (done.code, done.out) == (code, "")
    assert says in done.err.splitlines()[-1]


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(LoadError, match="timm is not installed here: pip install timm"):
        architectures.named("timm:resnet18")


def test_a_network_of_timm() -> None:
    pytest.importorskip("timm")
    with pytest.raises(LoadError, match="timm has no such model; it has "):
        architectures.named("timm:resnot18").build(None)
    found = architectures.named("timm:resnet10t(in_chans=1)")
    assert found.input_shape == (3, 176, 176)
    assert found.build(7)(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


# kuangliu/pytorch-cifar: main.py, utils.py and models/, whose __init__ imports every network.
CIFAR = {
    "utils.py": "def said():\n    return 4\n",
    "models/__init__.py": "from .resnet import *\nfrom .dense import *\n",
    "models/dense.py": "from torch import nn\n",
    "models/blocks/__init__.py": "",
    "models/blocks/basic.py": "from torch import nn\nfrom ..dense import nn as same\n",
    "models/resnet.py": NET.format(
        imports="from .blocks.basic import nn as n\nfrom utils import said\nimport models.dense"
    ),
}


@pytest.mark.parametrize(
    "arch",
    ["models/resnet.py:build", "models:build", "models.resnet:build", "models/__init__.py:build"],
)
def test_a_repository_with_packages_of_its_own(compress: Compress, here: Path, arch: str) -> None:
    write(here, CIFAR)
    weights(here)
    path = list(sys.path)
    done = compress("net.pt", "--arch", arch, *QUANTIZE, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert sys.path == path


def test_from_outside_the_repository_and_two_of_one_name(compress: Compress, here: Path) -> None:
    """The second repository's ``models`` is not the first one's, though Python knows that one."""
    write(here / "a", CIFAR)
    write(here / "b", {**CIFAR, "models/resnet.py": CIFAR["models/resnet.py"].replace("=4", "=5")})
    weights(here)
    assert (
        compress("net.pt", "--arch", "a/models/resnet.py:build", *QUANTIZE, "--dry-run").code == 0
    )
    weights(here, width=5)
    done = compress("net.pt", "--arch", "b/models/resnet.py:build", *QUANTIZE, "--dry-run")
    assert (done.code, done.err) == (0, "")


def test_relative_imports_without_init_files(compress: Compress, here: Path) -> None:
    write(here, {"nets/net.py": NET.format(imports="from .part import *\nfrom ..top import *")})
    write(here, {"nets/part.py": "", "top.py": ""})
    weights(here)
    done = compress("net.pt", "--arch", "nets/net.py:build", *QUANTIZE, "--dry-run")
    assert (done.code, done.err) == (0, "")


def test_a_file_that_raises_shows_its_own_traceback(compress: Compress, here: Path) -> None:
    text = "def inner():\n    return [][1]\n\ndef build():\n    return inner()\n"
    write(here, {"mine.py": text, "asks.py": "import torch\ntorch.zeros(2).view(3)\n"})
    weights(here)
    done = compress("net.pt", "--arch", "mine.py:build", *QUANTIZE)
    lines = done.err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.strip() for line in lines if line.startswith("  File")] == [
        f'File "{here / "mine.py"}", line 5, in build',
        f'File "{here / "mine.py"}", line 2, in inner',
    ]
    assert lines[-2:] == [
        "IndexError: list index out of range",
        "error: --arch mine.py:build raised IndexError: list index out of range (line 2)",
    ]
    done = compress("net.pt", "--arch", "asks.py:build", *QUANTIZE)
    assert 'asks.py", line 2' in done.err
    assert "compressor" not in done.err.replace(str(here), "")


def test_a_forward_that_raises_shows_its_own_traceback(here: Path) -> None:
    text = NET.format(imports="") + (
        "class Net(nn.Sequential):\n"
        "    input_shape = (1, 4, 4)\n"
        "    def forward(self, x):\n"
        "        return 1 / 0\n"
        "def bad():\n    return Net(*build())\n"
        "bad.input_shape = (1, 4, 4)\n"
    )
    write(here, {"mine.py": text})
    weights(here)
    with pytest.raises(LoadError, match=r"does not run .* \(division by zero\)") as caught:
        loading.load(here / "net.pt", arch=f"{here}/mine.py:bad")
    assert "return 1 / 0" in caught.value.__notes__[0]
    assert "loading.py" not in caught.value.__notes__[0]
