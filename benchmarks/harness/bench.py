"""``compress bench`` as one call: files in, plain data out (schema: ``docs/bench.schema.json``)."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compressor.benchmarks.environment import environment, hardware_state
from compressor.benchmarks.harness import noise
from compressor.benchmarks.harness.names import RUNTIMES
from compressor.benchmarks.harness.processes import Failed, Process
from compressor.benchmarks.harness.results import fill
from compressor.benchmarks.harness.rounds import Cell, Limits, Participant, imports, measure
from compressor.benchmarks.harness.sizes import sizes
from compressor.benchmarks.harness.subjects import Subject
from compressor.errors import UsageError
from compressor.models import registry
from compressor.progress import Progress
from compressor.reporting.intervals import wilson

Json = dict[str, Any]
VERSION = 1
PROFILE_CALLS = 50


@dataclass(frozen=True)
class Plan:
    """What is to be measured. ``runtimes`` empty: what suits the files."""

    runtimes: tuple[str, ...] = ()
    device: str = "cpu"
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    data: Json | None = None
    per_layer: bool = False
    sparse: bool = False

    def __post_init__(self) -> None:
        for name in self.runtimes:
            if name not in RUNTIMES:
                raise UsageError(f"--runtime {name}: there are {', '.join(RUNTIMES)}")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"--device {self.device}: give cpu, cuda or cuda:N")
        if min((*self.batches, *self.threads), default=0) < 1:
            raise UsageError("--batch and --threads must be at least 1")

    def for_files(self, subjects: Sequence[Subject]) -> "Plan":
        """With the runtimes resolved: ONNX Runtime, and PyTorch if all are checkpoints."""
        if self.runtimes:
            return self
        torch = all(each.kind == "checkpoint" for each in subjects)
        return replace(self, runtimes=("torch", "ort") if torch else ("ort",))


def bench(subjects: Sequence[Subject], plan: Plan, progress: Progress | None = None) -> Json:
    """Measure and compare; the first of ``subjects`` is what the others are compared with.

    Files that fail, and runtimes that crash, are reported in the result. Ctrl-C ends it early, and
    what there is then is the result.
    """
    progress = progress or Progress()
    plan = plan.for_files(subjects)
    result: Json = {
        "schema": VERSION,
        "environment": {**environment(), "state": hardware_state()},
        "plan": {**asdict(plan), "files": [each.label for each in subjects]},
        "interrupted": False,
        "warnings": [],
        "subjects": [{"label": each.label, "kind": each.kind} for each in subjects],
        "cells": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _measure(result, list(subjects), plan, Path(scratch), progress)
        except KeyboardInterrupt:
            result["interrupted"] = True
    return result


def _measure(
    result: Json, subjects: list[Subject], plan: Plan, scratch: Path, progress: Progress
) -> None:
    before = noise.steal()
    with _Describer(plan, scratch) as describer:
        exported = [
            describer.fill(row, subject)
            for row, subject in zip(result["subjects"], subjects, strict=True)
        ]
    subjects = [
        _recognised(subject, row) for subject, row in zip(subjects, result["subjects"], strict=True)
    ]
    participants = [
        _participant(subject, onnx, runtime, plan)
        for runtime in plan.runtimes
        for subject, onnx in zip(subjects, exported, strict=True)
    ]
    settings = [(batch, threads) for batch in plan.batches for threads in plan.threads]
    outcome = measure(participants, settings, plan.limits, plan.seed, progress)
    fill(result, outcome, plan.limits, before)
    if outcome.interrupted:
        raise KeyboardInterrupt
    for row, subject, onnx in zip(result["subjects"], subjects, exported, strict=True):
        if plan.data is not None:
            row["accuracy"] = _accuracy(subject, plan)
        if plan.per_layer:
            row["per_layer"] = _job("profile", onnx, plan, ["onnxruntime"], calls=PROFILE_CALLS)
        if plan.sparse:
            row["sparse"] = _job("sparse", subject, plan, ["torch", "onnxruntime"])
    _compare_accuracy(result["subjects"])


class _Describer:
    """Sizes and counts of one file after another, in a process that is replaced where it dies."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan, self.scratch = plan, scratch
        self.process: Process | None = None
        self.known: dict[str, tuple[Json, Path]] = {}

    def __enter__(self) -> "_Describer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.close()

    def fill(self, row: Json, subject: Subject) -> Subject:
        """Fill a subject's row; returns it in the form that ONNX Runtime takes."""
        if subject.path not in self.known:
            onnx = self.scratch / f"{len(self.known)}.onnx"
            self.known[subject.path] = self._described(subject, onnx), onnx
        found, onnx = self.known[subject.path]
        row.update(found)
        if subject.kind == "checkpoint" and onnx.exists():
            return replace(subject, path=str(onnx), kind="onnx", shapes=())
        return subject

    def _described(self, subject: Subject, onnx: Path) -> Json:
        asked: Json = {"do": "job", "name": "describe", "subject": subject.row()}
        if subject.kind == "checkpoint" and ("ort" in self.plan.runtimes or self.plan.per_layer):
            asked["onnx"] = str(onnx)
        if self.process is None:
            self.process = Process(1)
        try:
            return {**sizes(Path(subject.path)), **self.process.ask(asked)}
        except Failed as failed:
            if not self.process.alive:
                self.process.close()
                self.process = None
            return {**sizes(Path(subject.path)), "failure": str(failed)}


def _recognised(subject: Subject, row: Json) -> Subject:
    """With the architecture that its weights were recognised as, so that it is not done again."""
    name = row.get("arch")
    known = name is not None and (name.startswith("torchvision:") or name in registry.names())
    return replace(subject, arch=name) if known else subject


def _participant(subject: Subject, onnx: Subject, runtime: str, plan: Plan) -> Participant:
    loaded = onnx if runtime == "ort" else subject
    cells = {
        (batch, threads): Cell(subject, runtime, batch, threads)
        for batch in plan.batches
        for threads in plan.threads
    }
    return Participant(loaded, runtime, plan.device, cells)


# ---- what is done once -------------------------------------------------------------------------


def _job(name: str, subject: Subject, plan: Plan, names: list[str], **more: Any) -> Json:
    request = {
        "do": "job",
        "name": name,
        "subject": subject.row(),
        "batch": plan.batches[0],
        "threads": plan.threads[0],
        "device": plan.device,
        **more,
    }
    try:
        with Process(plan.threads[0]) as process:
            process.ask({"do": "imports", "names": names})
            return process.ask(request)
    except Failed as failed:
        return {"failure": str(failed)}


def _accuracy(subject: Subject, plan: Plan) -> Json:
    """A checkpoint's in PyTorch, any other's in ONNX Runtime."""
    runtime = "torch" if subject.kind == "checkpoint" else "ort"
    found = _job("accuracy", subject, plan, imports(runtime), runtime=runtime, data=plan.data)
    if "failure" in found:
        return found
    right, images = sum(found["right"]), len(found["right"])
    low, high = wilson(right / images, images) or (0.0, 1.0)
    return {
        **found,
        "runtime": runtime,
        "images": images,
        "value": right / images,
        "low": low,
        "high": high,
    }


def _compare_accuracy(rows: list[Json]) -> None:
    """The change against the first network, on the same images: only where they differ counts."""
    first = rows[0].get("accuracy")
    for row in rows:
        own = row.get("accuracy")
        if own and first and "right" in own and "right" in first and own is not first:
            change = np.array(own["right"], float) - np.array(first["right"], float)
            reach = 1.96 * float(change.std(ddof=1)) / len(change) ** 0.5
            value = float(change.mean())
            own["change"] = {"value": value, "low": value - reach, "high": value + reach}
    for row in rows:
        if "right" in (row.get("accuracy") or {}):
            del row["accuracy"]["right"]
