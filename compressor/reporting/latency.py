"""Latency of ONNX files, measured side by side so that a noisy machine treats all alike."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from compressor.export.graph import INPUT
from compressor.export.verify import session
from compressor.progress import Progress
from compressor.settings import Channels

NOISE = 0.05
"""A latency over its goal by less than this part may be the machine's noise."""

WARMUP, MIN_ROUNDS, MAX_ROUNDS = 10, 30, 500


def latency(
    models: Mapping[str, bytes],
    shape: tuple[int, ...],
    *,
    threads: int = 1,
    seconds: float = 3.0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Milliseconds per call of each model on one random input of ``shape`` (1, ...).

    The models take turns, one call each, so that whatever else the machine does meets both. Each
    runs at least 30 and at most 500 times, within about ``seconds`` in all. Gives, per model,
    median, p5, p95 and minimum, and how it was measured.
    """
    sessions = {name: session(model, threads) for name, model in models.items()}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(WARMUP):
        for run in sessions.values():
            run.run(None, {INPUT: x})
    deadline = time.perf_counter() + seconds
    with (progress or Progress()).task("latency", MAX_ROUNDS) as advance:
        for count in range(MAX_ROUNDS):
            if count >= MIN_ROUNDS and time.perf_counter() > deadline:
                break
            for name, run in sessions.items():
                begin = time.perf_counter()
                run.run(None, {INPUT: x})
                times[name].append(1e3 * (time.perf_counter() - begin))
            advance()
    return {
        "runtime": "ONNX Runtime, CPU",
        "batch": shape[0],
        "threads": threads,
        "calls": len(next(iter(times.values()))),
        "ms": {name: _summary(values) for name, values in times.items()},
    }


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
