"""VGG for 32 x 32 images, with batch norm and a single linear layer.

The network of MIT's 6.5940 course laboratories on pruning and quantization: eight 3 x 3
convolutions after Simonyan and Zisserman (arXiv:1409.1556), halved four times, averaged over
space. Tensor names are the course's own, so its checkpoint is recognised.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

# Output channels of the convolutions between one pooling and the next.
STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


class VGG(nn.Module):
    """9,228,362 parameters and 606 M MACs for ten classes and 3 x 32 x 32 images.

    Parameters: 9 * sum of (input * output channels) + 2 * sum of output channels for the batch
    norms (convolutions carry no bias) + 512 * classes + classes. Default torch initialisation.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.backbone = nn.Sequential(_layers())
        self.classifier = nn.Linear(STAGES[-1][-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, classes) logits."""
        x = self.backbone(x)  # (B, 512, 2, 2)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def _layers() -> OrderedDict[str, nn.Module]:
    widths = [3, *(width for stage in STAGES for width in stage)]
    convolutions = iter(enumerate(pairwise(widths)))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, stage in enumerate(STAGES):
        for index, (c_in, c_out) in (next(convolutions) for _ in stage):
            layers[f"conv{index}"] = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            layers[f"bn{index}"] = nn.BatchNorm2d(c_out)
            layers[f"relu{index}"] = nn.ReLU(inplace=True)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    return layers
