"""One process that holds one network in one runtime, and does what it is told.

    python -m compressor.benchmarks.harness.worker

Requests come on stdin and answers go to stdout, a line of JSON each. What libraries print goes to
stderr. Ctrl-C is the parent's affair: it closes stdin, and the worker ends.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

Json = dict[str, Any]

STEADY = 0.02  # two windows of warm-up whose medians are nearer than this part
WARMUP_SECONDS = 3.0
WINDOW_SECONDS = 0.02
BURST_SECONDS = 0.02
MAX_BURST = 200
SETTLE = 2  # calls at the beginning of a burst that bring caches back, and do not count


class Worker:
    """The state between requests."""

    def __init__(self) -> None:
        self.runtime: Any = None
        self.settle, self.slow_down, self.warm = 0, 0.0, 0.0

    def imports(self, request: Json) -> Json:
        """Import libraries, timed."""
        begin = time.perf_counter()
        for name in (*request["names"], "compressor.benchmarks.harness.runtimes"):
            importlib.import_module(name)
        return {"import_ms": 1e3 * (time.perf_counter() - begin)}

    def open(self, request: Json) -> Json:
        """Load and give the first answer, timed together; peak memory of it."""
        from compressor.benchmarks.harness.runtimes import open_runtime
        from compressor.benchmarks.harness.subjects import Subject

        begin = time.perf_counter()
        before = resident()
        reset_peak()
        subject = Subject.from_row(request["subject"])
        self.runtime = open_runtime(request["runtime"], subject, request["device"])
        self.runtime.prepare(request["batch"], request["threads"])
        outputs = self.runtime.arrays(self.runtime.call())
        done = time.perf_counter()
        return {
            "load_ms": 1e3 * (done - begin),
            "imports_bytes": before,
            "first_peak_bytes": peak(),
            "finite": finite(outputs),
        }

    def prepare(self, request: Json) -> Json:
        """Warm up until steady, and find how many calls a burst takes."""
        self.runtime.prepare(request["batch"], request["threads"])
        shown = finite(self.runtime.arrays(self.runtime.call()))
        first = self.runtime.time()
        size = max(3, min(MAX_BURST, round(1e9 * WINDOW_SECONDS / max(1, first))))
        deadline = time.perf_counter() + WARMUP_SECONDS
        calls, last, steady = 2, float(first), False
        while not steady and time.perf_counter() < deadline:
            now = middle([self.runtime.time() for _ in range(size)])
            steady = abs(now - last) <= STEADY * last
            calls, last = calls + size, now
        burst = max(1, min(MAX_BURST, round(1e9 * BURST_SECONDS / max(1.0, last))))
        self.settle = min(SETTLE, burst - 1)
        self.slow_down, self.warm = request.get("slow_down", 0.0), last
        return {"warmup_calls": calls, "steady": steady, "calls": burst, "ns": last} | {
            "finite": shown
        }

    def measure(self, request: Json) -> Json:
        """A burst of calls: the time of each, the CPU's time for all, and how often we were cut."""
        runtime, count = self.runtime, request["calls"]
        for _ in range(self.settle):
            runtime.call()
        gc.disable()
        try:
            switches, begin, cpu = involuntary(), time.perf_counter_ns(), time.process_time_ns()
            times = [self.time() for _ in range(count)]
            cpu = time.process_time_ns() - cpu
            wall = time.perf_counter_ns() - begin
        finally:
            gc.enable()
        return {
            "ns": times,
            "cpu_ns": cpu,
            "wall_ns": wall,
            "preempted": involuntary() - switches,
            "peak_bytes": peak(),
        }

    def time(self) -> int:
        """Nanoseconds of one call; longer by what a calibration has asked for."""
        taken: int = self.runtime.time()
        if self.slow_down:
            end = time.perf_counter_ns() + round(self.slow_down * self.warm)
            while (now := time.perf_counter_ns()) < end:
                pass
            taken += round(self.slow_down * self.warm) + now - end
        return taken

    def job(self, request: Json) -> Json:
        """Work that is done once and in a process of its own: see ``jobs``."""
        from compressor.benchmarks.harness import jobs

        return jobs.JOBS[request["name"]](request)


def finite(outputs: list[Any]) -> bool:
    import numpy as np

    return all(bool(np.isfinite(each).all()) for each in outputs if each.dtype.kind == "f")


def middle(values: list[int]) -> float:
    ordered = sorted(values)
    return (ordered[len(values) // 2] + ordered[(len(values) - 1) // 2]) / 2


def resident() -> int | None:
    return _status("VmRSS")


def peak() -> int | None:
    """Most memory that was resident at one time, since the peak was last reset."""
    return _status("VmHWM")


def reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not allowed: the peak is that of the whole life


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024 * int(found[0]) if found else None


def involuntary() -> int:
    """How often the system has taken the processor from this process for another one."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def answer(worker: Worker, request: Json) -> Json:
    from compressor.errors import CompressorError

    handlers: dict[str, Callable[[Json], Json]] = {
        "imports": worker.imports,
        "open": worker.open,
        "prepare": worker.prepare,
        "measure": worker.measure,
        "job": worker.job,
    }
    try:
        return {"ok": handlers[request["do"]](request)}
    except CompressorError as error:
        return {"error": " ".join(str(error).split()), "kind": type(error).__name__}
    except Exception as error:  # whatever a runtime raises is told, and is not the end of all
        said = " ".join(str(error).split())[:500]
        return {"error": f"{type(error).__name__}: {said}", "kind": type(error).__name__}


def serve(requests: TextIO, answers: TextIO) -> None:
    worker = Worker()
    for line in requests:
        answers.write(json.dumps(answer(worker, json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of libraries do not mix with answers
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
