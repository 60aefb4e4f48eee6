"""The 46 networks that coverage is counted on: a fixed list, by name.

Weights are random, by a seed. What initialisation leaves constant (statistics of norms, scales of
residual branches, tokens and position embeddings) is drawn at random too: a branch that is
multiplied by zero could be cut in any way without a difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.models import registry

TORCHVISION = (
    *("alexnet", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"),
    *("densenet121", "googlenet", "inception_v3", "squeezenet1_1", "mobilenet_v2"),
    *("mobilenet_v3_large", "mnasnet1_0", "shufflenet_v2_x1_0", "efficientnet_b0"),
    *("efficientnet_v2_s", "regnet_x_800mf", "regnet_y_800mf", "convnext_tiny", "vit_b_16"),
    "swin_t",
)
TIMM = (
    *("mobilenetv4_conv_small", "ghostnet_100", "res2net50_26w_4s", "cspdarknet53", "hrnet_w18"),
    *("dla34", "repvgg_a0", "mixnet_s", "mobilevit_s", "edgenext_x_small"),
    *("deit_tiny_patch16_224", "convnextv2_atto", "efficientformer_l1", "poolformer_s12"),
    *("seresnet50", "skresnet18", "resnest14d", "xception41", "mixer_s32_224"),
)
OURS = ("resnet20", "resnet32", "resnet44", "resnet56", "vgg-cifar", "lenet5")

NETWORKS = (
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"timm:{name}" for name in TIMM),
    *OURS,
)

_EXTRA = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
"""Heads that are only there in training are left out: a network that is deployed has one output."""


@dataclass(frozen=True)
class Built:
    """A network in evaluation mode, and the shape of one input, without the batch."""

    module: nn.Module
    shape: tuple[int, ...]


def build(name: str, seed: int = 0) -> Built:
    """The network of that name, with random weights."""
    torch.manual_seed(seed)
    source, _, short = name.rpartition(":")
    if source == "torchvision":
        from torchvision import models

        size = 299 if short == "inception_v3" else 224
        built = Built(models.get_model(short, **_EXTRA.get(short, {})), (3, size, size))
    elif source == "timm":
        import timm

        module: Any = timm.create_model(short)
        built = Built(module, tuple(module.pretrained_cfg["input_size"]))
    else:
        entry = registry.get(short)
        built = Built(entry.build(), entry.input_shape)
    randomise(built.module)
    built.module.eval()
    return built


def randomise(module: nn.Module) -> None:
    """Draw what initialisation left constant, from torch's global generator."""
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_var is not None:
                child.running_mean.normal_(0.0, 0.1)  # type: ignore[union-attr]
                child.running_var.uniform_(0.5, 1.5)
        for name, value in module.named_parameters():
            if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
                _draw(name, value)


def _draw(name: str, value: Tensor) -> None:
    if name.endswith("bias"):
        value.normal_(0.0, 0.1)
    elif value.numel() == max(value.shape):  # a scale for each channel
        value.uniform_(0.5, 1.5)
    else:
        value.normal_(0.0, 1.0 / value[0].numel() ** 0.5)


def attempted(name: str, cover: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The row that ``cover`` fills for a network, and whether it got to its end."""
    row: dict[str, Any] = {"network": name, "step": "build"}
    try:
        cover(row)
        row["outcome"] = "passed"
    except Exception as error:  # whatever breaks, the row says where
        lines = str(error).strip().splitlines() or [""]
        row.update(outcome="failed", error=f"{type(error).__name__}: {lines[0]}")
    return row
