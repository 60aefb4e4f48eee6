"""Scores by what positions cost: the formula, and masks that leave fewer rows and columns."""

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import UsageError
from compressor.network import Context, Network
from compressor.pruning import prune
from compressor.pruning.rate import rate_aware
from compressor.settings import Prune, Training

STILL = Training(epochs=0)


def test_the_formula() -> None:
    scores = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    kept = np.array([[True, True, False, True], [False, True, False, False]])
    found = rate_aware(scores, kept, 0.5)
    mean = 4 / 8 + 1e-3
    for r in range(2):
        for c in range(4):
            row, column = kept[r].mean() + 1e-3, kept[:, c].mean() + 1e-3
            weight = max(1e-3, row * column / mean**2) ** 0.5
            assert found[r, c] == pytest.approx(scores[r, c] * weight)


def test_a_filter_counts_as_a_row_and_its_places_as_columns() -> None:
    scores, kept = np.random.default_rng(0).random((2, 4, 3, 2, 2))
    flat = rate_aware(scores.reshape(4, 12), kept.reshape(4, 12) < 0.5, 0.3)
    np.testing.assert_array_equal(rate_aware(scores, kept < 0.5, 0.3), flat.reshape(scores.shape))


def test_no_rate_and_vectors_stay() -> None:
    scores = np.random.default_rng(0).random((5, 6))
    assert rate_aware(scores, scores > 0.5, 0.0) is scores
    assert rate_aware(scores[0], scores[0] > 0.5, 1.0) is not None
    np.testing.assert_array_equal(rate_aware(scores[0], scores[0] > 0.5, 1.0), scores[0])


@pytest.mark.parametrize("schedule", ["rounds"])
def test_masks_leave_fewer_rows_at_the_same_sparsity(schedule: str) -> None:
    alive = []
    for rate in (0.0, 1.0):
        torch.manual_seed(0)
        layer = nn.Linear(40, 60)
        with torch.no_grad():
            layer.weight.mul_(torch.rand(60, 40) < torch.linspace(0.05, 0.9, 60)[:, None])
        net = Network(
            nn.Sequential(layer, nn.ReLU(), nn.Linear(60, 3)), torch.zeros(1, 40), "n", "n"
        )
        settings = Prune(sparsity={"0": 0.9}, rate=rate, retrain=STILL, schedule=schedule)  # type: ignore[arg-type]
        prune(net, settings, Context())
        mask = (layer.weight != 0).numpy()
        assert mask.sum() == 240
        alive.append(int(mask.any(1).sum()))
    assert alive[1] < alive[0]


@pytest.mark.parametrize("rate", [-0.1, 11.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match=r"prune\.rate"):
        Prune(rate=rate)
