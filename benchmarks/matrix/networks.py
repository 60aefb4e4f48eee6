"""The networks of the matrix: torchvision's, and two of other kinds."""

import torch
from torch import nn

from compressor import loading

SHAPES = {
    **{"resnet20": (3, 32, 32), "unet": (3, 32, 32), "recurrent": (9, 6), "transformer": (5, 16)},
    "vit_b_16": (3, 224, 224),
}
NETWORKS = (
    *("resnet20", "mobilenet_v3_small", "unet", "recurrent", "transformer"),
    *("resnet18", "resnet50", "mobilenet_v2", "vgg11", "efficientnet_b0", "vit_b_16"),
)
"""The first five take minutes, all of them hours."""
QUICK = NETWORKS[:5]


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


class Transformer(nn.Module):
    """Two layers of attention over a class token and what is seen."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        logits: torch.Tensor = self.head(out[:, 0])
        return logits


OWN = {"unet": UNet, "recurrent": Recurrent, "transformer": Transformer}


def network(name: str) -> tuple[nn.Module, tuple[int, ...], str]:
    """(module, shape of one input, what --arch says) with seeded random weights."""
    from torchvision import models

    torch.manual_seed(0)
    shape = SHAPES.get(name, (3, 64, 64))
    if name in OWN:
        module, arch = OWN[name](), f"{__name__}:{OWN[name].__name__}"
    elif name == "resnet20":
        module, arch = loading.build(name)[0], name
    else:
        module, arch = models.get_model(name, weights=None), f"torchvision:{name}"
    for value in module.parameters():
        if not value.any():  # a head of zeros would compare nothing
            nn.init.normal_(value, std=0.02)
    return module.eval(), shape, arch
