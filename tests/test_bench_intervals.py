"""Intervals hold what they should, on simulated timings: alike launches, drift, outliers."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from compressor.reporting import resampling
from compressor.reporting.intervals import wilson

TRIALS = 150
SLACK = 2.6 * math.sqrt(0.95 * 0.05 / TRIALS)
"""So much fewer hold by chance in one of 200 such tests, where 95 % should."""


@dataclass(frozen=True)
class Noise:
    """Deviations are relative. ``rho`` ties a round to the last; ``outliers`` is their part."""

    launches: int = 3
    rounds: int = 10
    launch: float = 0.0
    each: float = 0.01
    rho: float = 0.0
    outliers: float = 0.0
    drift: float = 0.0


def timings(noise: Noise, draw: np.random.Generator, common: list[np.ndarray]) -> list[np.ndarray]:
    found = []
    for shared in common:
        series = draw.standard_normal(noise.rounds)
        for k in range(1, noise.rounds):
            series[k] = noise.rho * series[k - 1] + math.sqrt(1 - noise.rho**2) * series[k]
        rare = (draw.random(noise.rounds) < noise.outliers) * draw.exponential(0.3, noise.rounds)
        own = noise.launch * draw.standard_normal()
        found.append(np.exp(shared + own + noise.each * series + rare))
    return found


def trials(noise: Noise, slower: float = 1.0) -> list[resampling.Interval]:
    draw = np.random.default_rng(7)
    found = []
    for _ in range(TRIALS):
        steps = np.arange(noise.launches * noise.rounds).reshape(noise.launches, -1)
        common = list(noise.drift * steps / steps.size)
        one, other = (timings(noise, draw, common) for _ in range(2))
        found.append(resampling.ratio(one, [slower * each for each in other]))
    return found


@pytest.mark.parametrize(
    "noise",
    [
        Noise(),
        Noise(launch=0.002, each=0.002),
        Noise(launch=0.01, each=0.002),
        Noise(launches=4, rho=0.6),
        Noise(launches=5, launch=0.002, rho=0.5, outliers=0.2),
        Noise(launches=5, drift=0.3),
        Noise(launches=10, rho=0.8),
    ],
    ids=str,
)
def test_a_network_against_itself_gives_one(noise: Noise) -> None:
    held = np.mean([each.holds_one for each in trials(noise)])
    assert held >= 0.95 - SLACK


def test_a_slow_down_of_5_percent_is_seen() -> None:
    found = trials(Noise(launch=0.002, each=0.005, rho=0.3, outliers=0.05), slower=1.05)
    assert np.mean([each.high < 1 for each in found]) >= 0.95
    assert np.mean([each.low <= 1 / 1.05 <= each.high for each in found]) >= 0.95 - SLACK


def test_a_bootstrap_over_rounds_alone_would_not_do() -> None:
    """Shows that the tests above would notice: launches that differ, taken for one."""
    draw = np.random.default_rng(0)
    noise, held = Noise(launch=0.01, each=0.002), 0
    for _ in range(TRIALS):
        common = [np.zeros(noise.rounds)] * noise.launches
        one, other = (np.concatenate(timings(noise, draw, common)) for _ in range(2))
        ratio = np.sort(one / other)
        drawn = np.median(draw.choice(ratio, (300, len(ratio))), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= 1 <= high
    assert held / TRIALS < 0.8


def test_drift_that_both_share_drops_out() -> None:
    steady, drifting = trials(Noise()), trials(Noise(drift=0.5))
    widths = [np.median([each.width for each in found]) for found in (steady, drifting)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_the_same_timings_give_the_same_interval() -> None:
    draw = np.random.default_rng(0)
    values = [draw.uniform(1, 2, 9) for _ in range(3)]  # 27: one value is the middle
    assert resampling.median(values) == resampling.median(values)
    assert resampling.median(values).value == pytest.approx(np.median(np.concatenate(values)))


@pytest.mark.parametrize("freedom", [2, 3, 5, 9, 30, 1000])
def test_students_quantile(freedom: int) -> None:
    rough = 0.05 if freedom == 2 else 0.01
    expected = stats.t.ppf(0.975, freedom)
    assert resampling.student(0.975, freedom) == pytest.approx(expected, rel=rough)


def test_the_interval_of_a_proportion() -> None:
    found = stats.binomtest(930, 1000).proportion_ci(0.95, "wilson")
    assert wilson(0.93, 1000) == pytest.approx((found.low, found.high), rel=1e-6)
