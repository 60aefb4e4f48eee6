"""The networks of the matrix: torchvision's, and two of other kinds."""

import torch
from torch import nn

SHAPES = {"vit_b_16": (3, 224, 224), "recurrent": (9, 6), "unet": (3, 32, 32)}
NETWORKS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "vgg11", "efficientnet_b0"),
    *("vit_b_16", "unet", "recurrent"),
)


class UNet(nn.Module):
    """Two steps down, two up, with shortcuts; a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(64, 32, 2, 2)
        self.join = nn.Conv2d(64, 32, 3, padding=1)
        self.head = nn.Conv2d(48, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        second = self.second(nn.functional.max_pool2d(first, 2))
        up = self.up(self.deep(nn.functional.max_pool2d(second, 2)))
        joined = nn.functional.relu(self.join(torch.cat([second, up], 1)))
        wide = nn.functional.interpolate(joined, scale_factor=2.0, mode="nearest")
        out: torch.Tensor = self.head(torch.cat([first, wide], 1))
        return out


class Recurrent(nn.Module):
    """Two directions of LSTM, a GRU, and a head on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 32, batch_first=True, bidirectional=True)
        self.one = nn.GRU(64, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.one(self.both(x)[0])[0][:, -1])
        return out


def network(name: str) -> tuple[nn.Module, tuple[int, ...], str]:
    """(module, shape of one input, what --arch says) with seeded random weights."""
    from torchvision import models

    torch.manual_seed(0)
    own = {"unet": UNet, "recurrent": Recurrent}
    module = own[name]() if name in own else models.get_model(name, weights=None)
    for value in module.parameters():
        if not value.any():  # a head of zeros would compare nothing
            nn.init.normal_(value, std=0.02)
    arch = f"compressor.benchmarks.matrix.networks:{own[name].__name__}" if name in own else ""
    return module.eval(), SHAPES.get(name, (3, 64, 64)), arch or f"torchvision:{name}"
