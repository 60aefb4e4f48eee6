"""What lies in the folder of each layout: files as a tool or a repository leaves them.

Each function fills an empty folder. All weights are random, from a seed.
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn


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
