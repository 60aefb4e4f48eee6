"""The pure parts of the channel benchmarks."""

import pytest
from torch import nn

from compressor.benchmarks.channels.accuracy import compared, interpolated
from compressor.benchmarks.channels.thin_resnets import widths


def test_a_line_between_two_points() -> None:
    curve = [(2.0, 90.0), (1.0, 80.0), (4.0, 92.0)]
    assert interpolated(curve, 1.5) == pytest.approx(85.0)
    assert interpolated(curve, 3.0) == pytest.approx(91.0)
    assert interpolated(curve, 2.0) == pytest.approx(90.0)
    assert interpolated(curve, 0.9) == pytest.approx(80.0)  # nothing of theirs is as fast
    assert interpolated(curve, 4.1) is None


def test_ours_stand_beside_the_peers_curve_of_the_same_network() -> None:
    rows = [
        {"network": "a", "name": "peer-2", "test": 80.0},
        {"network": "a", "name": "peer-1.5", "test": 90.0},
        {"network": "a", "name": "ours-2", "test": 88.0},
        {"network": "a", "name": "ours-9-one-shot"},
        {"network": "b", "name": "peer-1.7", "test": 10.0},
    ]
    times = {"ms": {"peer-2": {"median": 1.0}, "peer-1.5": {"median": 2.0}}}
    times["ms"] |= {"ours-2": {"median": 1.5}, "ours-9-one-shot": {"median": 1.2}}
    (line,) = compared("a", rows, times)
    assert line["peer_test"] == pytest.approx(85.0)
    assert line["points_better"] == pytest.approx(3.0)


def test_widths_are_those_of_convolutions_in_order() -> None:
    module = nn.Sequential(nn.Conv2d(3, 7, 1), nn.ReLU(), nn.Conv2d(7, 5, 1), nn.Linear(5, 2))
    assert widths(module) == [7, 5]
