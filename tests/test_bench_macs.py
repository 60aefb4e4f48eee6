"""MACs from the graph of the exported file against torch's counter on the module itself."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from compressor.benchmarks.harness import layers
from compressor.benchmarks.harness.subjects import Subject
from compressor.channels.speed import exported
from compressor.network import Network

QUICK = ("squeezenet1_1", "mobilenet_v3_small")
SLOW = (
    *("alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d"),
    *("wide_resnet50_2", "densenet121", "googlenet", "inception_v3", "mobilenet_v2"),
    *("mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_b0"),
    *("regnet_y_400mf", "regnet_x_800mf", "convnext_tiny"),
)
MILLIONS = {"resnet50": 4089.18, "mobilenet_v2": 300.77}
"""As fvcore's authors and others count them."""


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_macs_equal_half_of_torchs_count(name: str, tmp_path) -> None:
    extra = {"aux_logits": False, "init_weights": False}
    module = models.get_model(
        name, weights=None, **(extra if name in ("googlenet", "inception_v3") else {})
    ).eval()
    size = 299 if name == "inception_v3" else 224
    x = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    file = tmp_path / "net.onnx"
    file.write_bytes(exported(Network(module, x, name, name)))

    _, rows = layers.counted(Subject(str(file), "onnx", name))

    assert sum(row.macs for row in rows) == counter.get_total_flops() // 2
    if name in MILLIONS:
        assert sum(row.macs for row in rows) / 1e6 == pytest.approx(MILLIONS[name], abs=0.005)


def test_there_are_twenty_networks() -> None:
    assert len({*QUICK, *SLOW}) == 20
