"""Accuracy image by image, so that two networks can be compared on the very same images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.network import Row
from compressor.reporting.intervals import paired
from compressor.training.data import Data, Split, batches

BATCH = 500


def right(module: nn.Module, data: Data, split: Split) -> NDArray[np.bool_]:
    """Which images of ``split`` the module, in evaluation mode, classifies rightly: bool (N,)."""
    was_training = module.training
    module.eval()
    device = next(module.parameters()).device
    with torch.no_grad():
        found = [
            (module(x).argmax(1) == y).cpu().numpy()
            for x, y in batches(split, data, batch_size=BATCH, device=device)
        ]
    module.train(was_training)
    return np.concatenate([*found, np.zeros(0, bool)])


def change(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Row:
    """What became of the images: both bool (N,), N at least 1, of the same images."""
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    count = len(before)
    return {
        "images": count,
        "lost": lost,
        "won": won,
        "difference": (won - lost) / count,
        "interval": list(paired(lost, won, count)),
    }
