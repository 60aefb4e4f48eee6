"""Latency of ONNX files in a run's report: a few seconds, in the process that is there.

All take turns so that a noisy machine treats them alike, and the intervals are those of ``compress
bench`` (``resampling``). That has more runtimes, batches, threads and devices, and a process for
each network; a run does not start it.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.export.graph import INPUT
from compressor.export.verify import session
from compressor.files import size_of
from compressor.memory import give_back
from compressor.progress import Progress
from compressor.reporting import resampling
from compressor.settings import Channels

NOISE = 0.05
"""A latency over its goal by less than this part may be the machine's noise."""

WARMUP, MIN_ROUNDS, MAX_ROUNDS = 5, 40, 500
SET = 10
"""Rounds between which the models are loaded anew: two copies of one file may differ for good."""
LARGE = 1 << 29
"""Bytes of all models from which one alone is in memory at a time."""
BINS = 40
"""Of the histograms of single calls, evenly spaced by the logarithm of the time."""


def latency(
    models: Mapping[str, bytes | Path],
    shape: "tuple[int, ...] | Mapping[str, NDArray[Any]]",
    *,
    threads: int = 1,
    seconds: float = 3.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Milliseconds per call of each model on one random input of ``shape`` (1, ...), or on arrays
    by the names of inputs.

    The models take turns, one call each in an order drawn anew each round, so that whatever else
    the machine does meets all; every :data:`SET` rounds they are loaded anew. Large ones, for which
    memory may be short, take turns by sets of rounds instead. Each runs at least
    40 and at most 500 times, within about ``seconds`` in all. Gives, per model, median, p5, p95,
    minimum, 95 % intervals of the median and of how many times faster than the first it is, and
    a histogram of all calls, outliers kept; and how it was measured.
    """
    generator = np.random.default_rng(0)
    feed = shape if isinstance(shape, Mapping) else {INPUT: _drawn(generator, shape)}
    names, count = list(models), 0
    large = sum(map(_bytes, models.values())) > LARGE
    times: dict[str, list[float]] = {name: [] for name in models}
    deadline = time.perf_counter() + seconds
    with (progress or Progress()).task("latency", MAX_ROUNDS) as advance:
        while count < MIN_ROUNDS or (count < MAX_ROUNDS and time.perf_counter() < deadline):
            order = [str(name) for name in generator.permutation(names)]
            for group in [[name] for name in order] if large else [order]:
                sessions = {name: session(models[name], threads) for name in group}
                for turn in range(WARMUP + SET):
                    for name in generator.permutation(group):
                        begin = time.perf_counter()
                        sessions[name].run(None, feed)
                        if turn >= WARMUP:
                            times[name].append(1e3 * (time.perf_counter() - begin))
                    if turn >= WARMUP and group[-1] == order[-1]:
                        advance()
                del sessions
                if large:
                    give_back()
            count += SET
    sets = {name: np.array(values).reshape(-1, SET) for name, values in times.items()}
    edges = np.geomspace(*_range(times), BINS + 1)
    return {
        "runtime": "ONNX Runtime, CPU",
        "batch": len(next(iter(feed.values()))),
        "threads": threads,
        "calls": len(next(iter(times.values()))),
        "ms": {
            name: {**_summary(values), **_intervals(list(sets[names[0]]), list(sets[name]))}
            for name, values in times.items()
        },
        "histogram": {
            "low": float(edges[0]),
            "high": float(edges[-1]),
            "counts": {n: np.histogram(v, edges)[0].tolist() for n, v in times.items()},
        },
    }


def _bytes(model: bytes | Path) -> int:
    return len(model) if isinstance(model, bytes) else size_of(model)


def _drawn(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return generator.standard_normal(shape).astype(np.float32)


def missed(measured: Mapping[str, Any], channels: Channels | None) -> list[str]:
    """Goals that the latency of a run missed, a sentence each.

    Only a network that was to lose channels is expected to be faster than it was.
    """
    if channels is None:
        return []
    dense, small = (measured["ms"][name]["median"] for name in ("dense", "compressed"))
    wanted = channels.target_latency or 1.0
    if small <= wanted * dense * (1 + NOISE):
        return []
    if channels.target_latency is not None:
        return [f"the network takes {small / dense:.2f} of the dense one's time, not {wanted:g}"]
    return [
        f"fewer channels did not make the network faster: {small:.3f} ms in place of "
        f"{dense:.3f} ms; try other widths (--round auto) or remove more"
    ]


def _summary(values: list[float]) -> dict[str, float]:
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    return {
        "median": float(median),
        "p5": float(p5),
        "p95": float(p95),
        "minimum": float(min(values)),
    }


def _intervals(
    base: list[NDArray[np.float64]], own: list[NDArray[np.float64]]
) -> dict[str, list[float]]:
    """Of the median, and of how many times it goes into the median of ``base``."""
    found = {"median": resampling.median(own), "faster": resampling.quotient(base, own)}
    return {f"{key}_interval": [each.low, each.high] for key, each in found.items()}


def _range(times: Mapping[str, list[float]]) -> tuple[float, float]:
    """A little more than from the fastest to the slowest call of all."""
    every = [value for values in times.values() for value in values]
    return 0.999 * min(every), 1.001 * max(every)
