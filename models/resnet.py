"""ResNet-18 and ResNet-50 (He et al. 2016, arXiv:1512.03385), for ImageNet and for CIFAR.

Tensor names and arithmetic are torchvision's, so its checkpoints load: the bottleneck's stride
sits on its 3 x 3 convolution. The CIFAR variants replace the stem (7 x 7 convolution with
stride 2, then max-pooling) by one 3 x 3 convolution, for 32 x 32 images have no pixels to lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from compressor.models.init import he_normal


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., figure 5 left)."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(c_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 convolutions and a shortcut (He et al., figure 5 right)."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(c_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return F.relu(x + shortcut)


class ResNet(nn.Module):
    """Four stages of residual blocks, averaged over space, and one linear layer.

    ``normalise_shortcuts`` puts a batch norm after each projection shortcut, as torchvision
    does; without it the shortcut is the bare linear projection W_s of He et al. eq. (2).
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        classes: int,
        stem: Literal["imagenet", "cifar"],
        normalise_shortcuts: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, stride=2) if stem == "imagenet" else _conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()
        widths = (64, 128, 256, 512)
        inputs = (64, *(width * block.expansion for width in widths))
        stages = [
            _stage(block, depth, inputs[i], widths[i], 1 if i == 0 else 2, normalise_shortcuts)
            for i, depth in enumerate(depths)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs[-1], classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes) logits."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def _stage(
    block: type[BasicBlock | Bottleneck],
    depth: int,
    c_in: int,
    width: int,
    stride: int,
    normalise_shortcuts: bool,
) -> nn.Sequential:
    c_out = width * block.expansion
    downsample = None
    if stride != 1 or c_in != c_out:
        norm = [nn.BatchNorm2d(c_out)] if normalise_shortcuts else []
        downsample = nn.Sequential(_conv(c_in, c_out, 1, stride), *norm)
    first = block(c_in, width, stride, downsample)
    return nn.Sequential(first, *(block(c_out, width, 1, None) for _ in range(depth - 1)))


def resnet18(classes: int = 1000) -> ResNet:
    """ResNet-18 for 224 x 224 images: 11,689,512 parameters for 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, "imagenet")


def resnet50(classes: int = 1000) -> ResNet:
    """ResNet-50 for 224 x 224 images: 25,557,032 parameters for 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, "imagenet")


def resnet18_cifar(classes: int = 10) -> ResNet:
    """ResNet-18 for 32 x 32 images: 11,173,962 parameters for ten classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, "cifar")


def resnet50_cifar(classes: int = 10) -> ResNet:
    """ResNet-50 for 32 x 32 images: 23,513,162 parameters for ten classes.

    This is ImageNet's 25,557,032, less (2048 + 1) * 990 for the classifier, less
    3 * 64 * (49 - 9) = 7,680 for the stem, which leaves 23,520,842 - the count with a batch
    norm on every shortcut - less 2 * (256 + 512 + 1024 + 2048) = 7,680 for the four batch norms
    that the shortcuts here do without: they are bare 1 x 1 convolutions.
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, "cifar", normalise_shortcuts=False)
