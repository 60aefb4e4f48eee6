"""Networks that the stages cannot treat are refused before anything is written."""

from pathlib import Path

import pytest
import torch
from torch import nn

import compressor
from compressor import Prune, Recipe, Share, Training
from compressor.errors import StageError

RECIPE = Recipe(prune=Prune(0.5), share=Share(3), threads=1)


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    network[2].weight = network[0].weight
    return network


def normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (tied(), "0 and 2 share one weight: untie them"),
        (normed(), "0 is parametrized already"),
        (nn.Linear(6, 4), "wrap it in torch.nn.Sequential"),
    ],
    ids=["tied", "weight norm", "bare layer"],
)
def test_layers_that_cannot_be_compressed_are_refused(
    network: nn.Module, says: str, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=says):
        compressor.compress(network, RECIPE, input_shape=(6,), output=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))  # type: ignore[no-any-return]


def test_a_layer_under_two_names_counts_once() -> None:
    result = compressor.compress(Twice(), RECIPE, input_shape=(6,))

    assert result.report["network"]["fp32_bytes"] == 4 * (6 * 6 + 6)


def test_a_last_batch_of_one_image_is_left_out() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    # 1,437 digits for training and validation, of which 1,293 are trained on: 1 more than 4 x 323.
    recipe = Recipe(prune=Prune(0.5, retrain=Training(epochs=1, batch_size=323)), threads=1)
    result = compressor.compress(network, recipe, data="digits", input_shape=(1, 8, 8))

    assert len(result.report["stages"]["prune"]["history"]) == 1
    assert result.report["data"]["training_images"] % 323 == 1
