"""Ten layouts in which people have their networks, each tried from an empty directory.

    python -m compressor.benchmarks.layouts [--only NAME...]

Makes each layout as its tool or repository would leave it, runs the commands a new user would give,
and writes `docs/layouts.md`: the commands and what was printed. A command whose exit code is not
the one expected ends with a failure, so the page is also a test.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

PAGE = Path(__file__).parents[1] / "docs" / "layouts.md"
SETTINGS = "--sparsity 0.8 --quantize 4bit --threads 1"


@dataclass(frozen=True)
class Layout:
    """``make`` fills an empty folder; ``steps`` are (command, exit code)."""

    name: str
    title: str
    make: Callable[[Path], None]
    steps: tuple[tuple[str, int], ...]
    told: str


def small() -> nn.Module:
    """The network that most layouts hold: a ResNet-20."""
    from compressor.models import registry

    torch.manual_seed(0)
    return registry.get("resnet20").build().eval()


def bare(folder: Path) -> None:
    torch.save(small().state_dict(), folder / "resnet20.pth")


def lightning(folder: Path) -> None:
    """What ``Trainer.save_checkpoint`` writes of a module that keeps its network as ``model``."""
    state = {f"model.{name}": value for name, value in small().state_dict().items()}
    content = {
        "epoch": 9,
        "global_step": 3910,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(content, folder / "epoch=9-step=3910.ckpt")


def parallel(folder: Path) -> None:
    state = nn.DataParallel(small()).state_dict()
    torch.save({"net": state, "acc": 91.2, "epoch": 200}, folder / "ckpt.pth")


def compiled(folder: Path) -> None:
    state = {f"_orig_mod.{name}": value for name, value in small().state_dict().items()}
    torch.save({"model": state, "step": 12000}, folder / "last.pt")


def timm_weights(folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), folder / "model.safetensors")


UTILS = '''"""Progress bar and the like."""
import os
import sys
import time


def format_time(seconds):
    return f"{seconds:.1f}s"
'''
CIFAR_NET = '''"""SmallNet in PyTorch."""
import torch
import torch.nn as nn
import torch.nn.functional as F

from .blocks import BasicBlock
from utils import format_time


class SmallNet(nn.Module):
    def __init__(self, block, num_blocks, num_classes=10):
        super(SmallNet, self).__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[block(16) for _ in range(num_blocks)])
        self.linear = nn.Linear(16, num_classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer1(out)
        out = F.avg_pool2d(out, 32)
        out = out.view(out.size(0), -1)
        return self.linear(out)


def SmallNet2():
    return SmallNet(BasicBlock, 2)


def test():
    net = SmallNet2()
    print(net(torch.randn(1, 3, 32, 32)).size())
'''
CIFAR_BLOCK = """import torch.nn as nn
import torch.nn.functional as F


class BasicBlock(nn.Module):
    def __init__(self, planes):
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)

    def forward(self, x):
        return F.relu(self.bn1(self.conv1(x)) + x)
"""


def repository(folder: Path) -> None:
    """kuangliu/pytorch-cifar's: ``models/`` with an ``__init__`` of all networks, ``utils.py``."""
    (folder / "models").mkdir()
    (folder / "models" / "__init__.py").write_text("from .smallnet import *\n")
    (folder / "models" / "smallnet.py").write_text(CIFAR_NET)
    (folder / "models" / "blocks.py").write_text(CIFAR_BLOCK)
    (folder / "utils.py").write_text(UTILS)
    (folder / "checkpoint").mkdir()
    make = (
        "import torch\nfrom models import *\ntorch.manual_seed(0)\n"
        "net = torch.nn.DataParallel(SmallNet2())\n"
        "torch.save({'net': net.state_dict(), 'acc': 0.9, 'epoch': 1}, 'checkpoint/ckpt.pth')\n"
    )
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)


def torchvision_weights(folder: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.mobilenet_v2(num_classes=37).state_dict(), folder / "mobilenet_v2_pets.pth")


def tensorflow(folder: Path) -> None:
    """Names, an NHWC input and a weight laid out as in TensorFlow: what tf2onnx writes."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    root = "StatefulPartitionedCall/model"
    nodes = [
        helper.make_node(
            "Transpose", ["input_1:0"], ["nchw:0"], f"{root}/transpose", perm=[0, 3, 1, 2]
        ),
        helper.make_node(
            "Conv",
            ["nchw:0", f"{root}/conv2d/Conv2D/ReadVariableOp:0", f"{root}/conv2d/BiasAdd:0"],
            ["conv:0"],
            f"{root}/conv2d/Conv2D",
            auto_pad="SAME_UPPER",
            strides=[2, 2],
            kernel_shape=[3, 3],
        ),
        helper.make_node("Relu", ["conv:0"], ["relu:0"], f"{root}/conv2d/Relu"),
        helper.make_node("GlobalAveragePool", ["relu:0"], ["pool:0"], f"{root}/gap"),
        helper.make_node("Squeeze", ["pool:0", "axes"], ["flat:0"], f"{root}/squeeze"),
        helper.make_node(
            "MatMul",
            ["flat:0", f"{root}/dense/MatMul/ReadVariableOp:0"],
            ["mm:0"],
            f"{root}/dense/MatMul",
        ),
        helper.make_node(
            "Add", ["mm:0", f"{root}/dense/BiasAdd:0"], ["logits:0"], f"{root}/dense/BiasAdd"
        ),
        helper.make_node("Softmax", ["logits:0"], ["Identity:0"], f"{root}/dense/Softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "tf2onnx",
        [helper.make_tensor_value_info("input_1:0", TensorProto.FLOAT, ["unk__27", 32, 32, 3])],
        [helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, ["unk__28", 10])],
        [
            weight(f"{root}/conv2d/Conv2D/ReadVariableOp:0", 16, 3, 3, 3),
            weight(f"{root}/conv2d/BiasAdd:0", 16),
            weight(f"{root}/dense/MatMul/ReadVariableOp:0", 16, 10),
            weight(f"{root}/dense/BiasAdd:0", 10),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    opset = [helper.make_opsetid("", 15)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")


def script(folder: Path) -> None:
    traced = torch.jit.trace(small(), torch.zeros(1, 3, 32, 32), check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, folder / "model_scripted.pt")


def exported(folder: Path) -> None:
    program = torch.export.export(small(), (torch.zeros(1, 3, 32, 32),))
    torch.export.save(program, folder / "model.pt2")


LAYOUTS = (
    Layout(
        "bare",
        "A bare `state_dict`",
        bare,
        ((f"compress resnet20.pth {SETTINGS}", 0),),
        "`torch.save(model.state_dict(), ...)`. The class is recognised from names and shapes.",
    ),
    Layout(
        "lightning",
        "A Lightning checkpoint",
        lightning,
        ((f"compress epoch=9-step=3910.ckpt {SETTINGS}", 0),),
        "`Trainer.save_checkpoint`: weights under `state_dict`, each name with the attribute's "
        "`model.` in front.",
    ),
    Layout(
        "parallel",
        "`DataParallel`, with figures beside the weights",
        parallel,
        ((f"compress ckpt.pth {SETTINGS}", 0),),
        "`{'net': net.state_dict(), 'acc': ..., 'epoch': ...}`, each name with `module.` in front.",
    ),
    Layout(
        "compiled",
        "`torch.compile`",
        compiled,
        ((f"compress last.pt {SETTINGS}", 0),),
        "Saved from the compiled module: each name with `_orig_mod.` in front.",
    ),
    Layout(
        "timm",
        "timm's `model.safetensors`",
        timm_weights,
        (
            (f"compress model.safetensors {SETTINGS}", 1),
            (f"compress model.safetensors --arch timm:resnet10t {SETTINGS}", 0),
        ),
        "As on its hub: bare tensors, no word of the class.",
    ),
    Layout(
        "cifar",
        "A CIFAR repository with its own `models/` and `utils.py`",
        repository,
        (
            (f"compress checkpoint/ckpt.pth {SETTINGS}", 1),
            (f"compress checkpoint/ckpt.pth --arch models:SmallNet2 {SETTINGS}", 1),
            (
                "compress checkpoint/ckpt.pth --arch models/smallnet.py:SmallNet2 "
                f"--input-shape 1,3,32,32 {SETTINGS}",
                0,
            ),
        ),
        "kuangliu/pytorch-cifar's layout: relative imports, `from utils import ...`, a checkpoint "
        "of `DataParallel`.",
    ),
    Layout(
        "torchvision",
        "torchvision, with a head of one's own",
        torchvision_weights,
        ((f"compress mobilenet_v2_pets.pth --arch torchvision:mobilenet_v2 {SETTINGS}", 0),),
        "The number of classes is the checkpoint's.",
    ),
    Layout(
        "tf2onnx",
        "ONNX from TensorFlow",
        tensorflow,
        ((f"compress model.onnx {SETTINGS}", 0),),
        "tf2onnx's names, NHWC input, SAME padding.",
    ),
    Layout(
        "torchscript",
        "TorchScript",
        script,
        (
            (f"compress model_scripted.pt {SETTINGS}", 1),
            (f"compress model_scripted.pt --input-shape 1,3,32,32 {SETTINGS}", 0),
        ),
        "`torch.jit.trace(...).save(...)`. It does not tell the size of its input.",
    ),
    Layout(
        "pt2",
        "`torch.export.save`",
        exported,
        ((f"compress model.pt2 {SETTINGS}", 0),),
        "Recorded for one input; it goes on for any batch.",
    ),
)

HEAD = """# Ten layouts, tried from an empty directory

Written by `python -m compressor.benchmarks.layouts`, which makes each layout, runs these commands
and keeps what they print. All weights are random: what counts is whether a network is found, built
and written, and what is said where not.
"""


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.layouts")
    names = [layout.name for layout in LAYOUTS]
    described.add_argument("--only", nargs="*", choices=names, default=names)
    described.add_argument("-o", "--output", type=Path, default=PAGE)
    arguments = described.parse_args(words)
    parts, wrong = [HEAD], []
    for number, layout in enumerate(LAYOUTS, 1):
        if layout.name not in arguments.only:
            continue
        text, bad = tried(layout)
        parts.append(f"## {number}. {layout.title}\n\n{layout.told}\n\n```console\n{text}```\n")
        wrong += bad
        print(layout.name, "FAILED" if bad else "done", flush=True)
    arguments.output.write_text("\n".join(parts), encoding="utf-8")
    if wrong:
        raise SystemExit("\n".join(wrong))


def tried(layout: Layout) -> tuple[str, list[str]]:
    """What a user sees, and the commands that did not end as they should."""
    shown, wrong = "", []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layout.make(folder)
        for command, expected in layout.steps:
            done = run(command, folder)
            shown += f"$ {command}\n{cleaned(done.stdout + done.stderr, folder)}"
            if done.returncode != expected:
                wrong.append(
                    f"{layout.name}: {command}: exit code {done.returncode}\n{done.stderr}"
                )
    return shown, wrong


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    _, *words = shlex.split(command)
    return subprocess.run(
        [sys.executable, "-m", "compressor", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "110"},
    )


def cleaned(text: str, folder: Path) -> str:
    """Without the folder's own name, spaces at lines' ends, or more than one empty line.

    Tables of layers and latencies, and what no run measures, are the same everywhere: left out.
    """
    text = re.sub(r"(?ms)^(layers, and|ONNX Runtime, CPU,).*?\n\n", "...\n", text)
    text = re.sub(r"(?m)^(zeros alone|not measured: ).*\n", "", text)
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


if __name__ == "__main__":
    main()
