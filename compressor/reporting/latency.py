"""Latency of ONNX files, measured side by side so that a noisy machine treats all alike."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from compressor.export.graph import INPUT
from compressor.export.verify import session
from compressor.progress import Progress

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


def _summary(values: list[float]) -> dict[str, float]:
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    return {
        "median": float(median),
        "p5": float(p5),
        "p95": float(p95),
        "minimum": float(min(values)),
    }
