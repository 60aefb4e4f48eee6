"""The LeNets of the pruning literature, for 28 x 28 grey images.

Deep Compression (arXiv:1510.00149, section 5.1) reports LeNet-300-100 and LeNet-5 on MNIST;
its LeNet-5 is the one shipped with Caffe, not the network of LeCun et al. 1998.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LeNet300(nn.Module):
    """LeNet-300-100: two hidden layers of 300 and 100 units.

    784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10 = 266,610 parameters.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, classes) logits."""
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits


class LeNet5(nn.Module):
    """LeNet-5 in Caffe's shapes: 20-50-500-10, 5 x 5 convolutions without padding.

    (20 * 25 + 20) + (50 * 20 * 25 + 50) + (800 * 500 + 500) + (500 * 10 + 10)
    = 431,080 parameters. Caffe's own has no ReLU after the convolutions; this one has, as the
    networks trained for pruning since then do. The ReLU follows the pooling, which gives the
    same values as the other order at a quarter of the work.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, classes) logits."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 20, 12, 12)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 50, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(x)
        return logits


class LeNet5Small(nn.Module):
    """The thin LeNet-5: 6-16-120-1024-10.

    The two convolutions of LeCun et al. 1998 (6 and 16 maps, 5 x 5, here without padding, so a
    28 x 28 image leaves 16 maps of 4 x 4), then linear layers 256 -> 120 -> 1024 -> classes:
    (6 * 25 + 6) + (16 * 6 * 25 + 16) + (256 * 120 + 120) + (120 * 1024 + 1024)
    + (1024 * 10 + 10) = 156 + 2,416 + 30,840 + 123,904 + 10,250 = 167,566 parameters.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 1024)
        self.fc3 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, classes) logits."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 6, 12, 12)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 16, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        logits: Tensor = self.fc3(x)
        return logits
