"""The thin ResNets for CIFAR-10 of He et al. 2016 (arXiv:1512.03385, section 4.2).

One 3 x 3 convolution, then three stages of n basic blocks with 16, 32 and 64 channels, an
average over space and one linear layer: 6n + 2 layers. Shortcuts carry no parameters (option A).
Tensor names are those of the widely used public checkpoints of these networks.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from compressor.models.init import he_normal


class Block(nn.Module):
    """Two 3 x 3 convolutions; where the shape changes, the option-A shortcut.

    Option A takes every second pixel and pads the channels with zeros, half of them before and
    half after, so that the identity costs no parameters.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.stride = stride
        self.padding = (c_out - c_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        shortcut = x
        if self.padding:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut)


class ThinResNet(nn.Module):
    """6 * ``blocks`` + 2 layers; ResNet-20 has 269,722 parameters, ResNet-56 853,018."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, classes) logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 64, 8, 8)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(c_in: int, c_out: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(c_in, c_out, stride)
    return nn.Sequential(first, *(Block(c_out, c_out, 1) for _ in range(blocks - 1)))


def resnet20(classes: int = 10) -> ThinResNet:
    """Three blocks a stage."""
    return ThinResNet(3, classes)


def resnet32(classes: int = 10) -> ThinResNet:
    """Five blocks a stage."""
    return ThinResNet(5, classes)


def resnet44(classes: int = 10) -> ThinResNet:
    """Seven blocks a stage."""
    return ThinResNet(7, classes)


def resnet56(classes: int = 10) -> ThinResNet:
    """Nine blocks a stage."""
    return ThinResNet(9, classes)
