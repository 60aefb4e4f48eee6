"""The order of measuring: launches, rounds in random order, until the intervals are narrow.

Processes hold one network in one runtime each, and take turns: while one measures, all others wait
for their next line of input. A *launch* starts them all anew; in it come ``ROUNDS`` rounds for
every batch and number of threads. How many launches there are is decided after each, from the
``LAUNCHES``-th on, and not after each round, so that looking often does not make luck look like a
result.
"""

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.benchmarks.harness.processes import Failed, Process
from compressor.benchmarks.harness.subjects import Subject
from compressor.progress import Progress
from compressor.reporting import resampling

Json = dict[str, Any]
LAUNCHES, ROUNDS, FEWEST = 3, 10, 3
IMPORTS = {"ort": ("numpy", "onnxruntime")}
TORCH_IMPORTS = ("numpy", "torch", "compressor.loading")


@dataclass(frozen=True)
class Limits:
    """Where measuring ends: all intervals narrower than ``width``, or after ``seconds``.

    ``seconds`` is for each batch and number of threads; a launch under way is finished, unless it
    takes as long again.
    """

    width: float = 0.03
    seconds: float = 30.0
    launches: int = LAUNCHES
    rounds: int = ROUNDS


@dataclass
class Cell:
    """One network in one runtime at one batch and number of threads, and all that was measured."""

    subject: Subject
    runtime: str
    batch: int
    threads: int
    launches: list[list[Json]] = field(default_factory=list)
    prepared: list[Json] = field(default_factory=list)
    failure: str | None = None

    def rounds(self) -> list[NDArray[np.float64]]:
        """Median milliseconds of each round, launch by launch."""
        return [
            np.array([np.median(burst["ns"]) / 1e6 for burst in launch])
            for launch in self.launches
            if launch
        ]

    def calls(self) -> NDArray[np.float64]:
        """Milliseconds of every call."""
        return np.concatenate(
            [np.asarray(burst["ns"], float) for launch in self.launches for burst in launch]
        ) / (1e6)


@dataclass
class Participant:
    """One network in one runtime: its cells, its process while there is one, its loadings.

    ``slow_down`` is a part of its own time that each call takes in addition: for calibration.
    """

    subject: Subject
    runtime: str
    device: str
    cells: dict[tuple[int, int], Cell]
    process: Process | None = None
    opened: list[Json] = field(default_factory=list)
    failure: str | None = None
    slow_down: float = 0.0

    def fail(self, why: str) -> None:
        """For good: what has failed once is not tried again."""
        self.failure, self.process = why, None
        for cell in self.cells.values():
            cell.failure = cell.failure or why


@dataclass
class Outcome:
    """All that a schedule gave, whole or broken off."""

    participants: list[Participant]
    seed: int
    interrupted: bool = False
    seconds: dict[tuple[int, int], float] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        return [cell for each in self.participants for cell in each.cells.values()]


Setting = tuple[int, int]


def measure(
    participants: Sequence[Participant],
    settings: Sequence[Setting],
    limits: Limits,
    seed: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Measure every participant at every setting, (batch, threads).

    Failures are noted in their cells. Ctrl-C ends it early: what was measured is kept.
    """
    outcome = Outcome(list(participants), seed, seconds=dict.fromkeys(settings, 0.0))
    order = random.Random(seed)
    open_settings = list(settings)
    try:
        with (progress or Progress()).task("bench", limits.launches * len(settings)) as advance:
            launch = 0
            while open_settings and any(each.failure is None for each in participants):
                _launch(outcome, open_settings, limits, order, advance)
                launch += 1
                if launch >= limits.launches:
                    open_settings = [
                        each for each in open_settings if not _finished(outcome, each, limits)
                    ]
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def _launch(
    outcome: Outcome,
    settings: Sequence[Setting],
    limits: Limits,
    order: random.Random,
    advance: Any,
) -> None:
    """Start a process for each participant, measure at each setting, end the processes."""
    with ExitStack() as stack:
        active = [each for each in outcome.participants if _living(each, settings)]
        began = time.monotonic()
        threads = max(count for _, count in settings)
        for each in active:
            each.process = stack.enter_context(Process(threads))
            _try(each, {"do": "imports", "names": imports(each.runtime)}, send_only=True)
        for each in active:  # imports are made together, files are loaded one by one
            imported = _receive(each)
            opened = _open(each, settings) if imported else None
            if imported and opened:
                each.opened.append({**imported, **opened})
        starting = time.monotonic() - began
        for setting in settings:
            outcome.seconds[setting] += starting / len(settings)
            begin = time.monotonic()
            _rounds([each for each in active if each.failure is None], setting, limits, order)
            outcome.seconds[setting] += time.monotonic() - begin
            advance(f"batch {setting[0]}, {setting[1]} thread{'s' if setting[1] > 1 else ''}")
        for each in active:
            each.process = None


def _living(each: Participant, settings: Sequence[Setting]) -> list[Setting]:
    """The settings at which there is something left to measure."""
    return [setting for setting in settings if each.cells[setting].failure is None]


def _open(each: Participant, settings: Sequence[Setting]) -> Json | None:
    """Load at the first setting that the network takes: a batch may be fixed in the file."""
    for setting in _living(each, settings):
        opened = _try(each, _opening(each, setting), each.cells[setting])
        if opened or each.failure is not None:
            return opened
    return None


def _opening(each: Participant, setting: Setting) -> Json:
    batch, threads = setting
    return {
        "do": "open",
        "subject": each.subject.row(),
        "runtime": each.runtime,
        "device": each.device,
        "batch": batch,
        "threads": threads,
    }


def _rounds(
    active: Sequence[Participant], setting: Setting, limits: Limits, order: random.Random
) -> None:
    ready: list[tuple[Participant, Cell, int]] = []
    for each in active:
        cell = each.cells[setting]
        if cell.failure is not None:
            continue
        request: Json = {"do": "prepare", "batch": setting[0], "threads": setting[1]}
        request["slow_down"] = each.slow_down
        prepared = _try(each, request, cell)
        if prepared:
            cell.prepared.append(prepared)
            cell.launches.append([])
            ready.append((each, cell, prepared["calls"]))
    late = time.monotonic() + 2 * limits.seconds
    for count in range(limits.rounds):
        if count >= FEWEST and time.monotonic() > late:
            break
        order.shuffle(ready)
        taken: list[tuple[Cell, Json]] = []
        for each, cell, calls in ready:
            if cell.failure is None:
                burst = _try(each, {"do": "measure", "calls": calls}, cell)
                if burst:
                    taken.append((cell, burst))
        for cell, burst in taken:  # a round that was broken off counts for none
            cell.launches[-1].append(burst)


def _try(
    each: Participant, request: Json, cell: Cell | None = None, *, send_only: bool = False
) -> Json | None:
    """Ask; a worker that is still alive has failed at this cell alone, if it is about one."""
    if each.process is None or each.failure is not None:
        return None
    try:
        each.process.send(request)
        return {} if send_only else each.process.receive()
    except Failed as failed:
        if cell is not None and each.process.alive:
            cell.failure = str(failed)
        else:
            each.fail(str(failed))
        return None


def _receive(each: Participant) -> Json | None:
    if each.process is None or each.failure is not None:
        return None
    try:
        return each.process.receive()
    except Failed as failed:
        each.fail(str(failed))
        return None


def imports(runtime: str) -> list[str]:
    return list(IMPORTS.get(runtime, TORCH_IMPORTS))


def _finished(outcome: Outcome, setting: Setting, limits: Limits) -> bool:
    """Narrow enough, or at the limit, or nothing left to measure."""
    cells = [each.cells[setting] for each in outcome.participants]
    alive = [cell for cell in cells if cell.failure is None and cell.rounds()]
    if not alive or outcome.seconds[setting] >= limits.seconds:
        return True
    widths = [resampling.median(cell.rounds()).width for cell in alive]
    widths += [found.width for cell in alive if (found := against_first(cell, outcome)) is not None]
    return max(widths) <= limits.width


def against_first(cell: Cell, outcome: Outcome) -> resampling.Interval | None:
    """How many times less time than the first network takes, in the same runtime and setting."""
    first = outcome.participants[0].subject
    for other in outcome.cells():
        same = (other.runtime, other.batch, other.threads) == (
            cell.runtime,
            cell.batch,
            cell.threads,
        )
        if same and other.subject.label == first.label and other is not cell:
            return paired(other, cell)
    return None


def paired(above: Cell, below: Cell) -> resampling.Interval | None:
    """The ratio of two cells over the rounds that both were measured in."""
    pairs = [
        (one[: len(other)], other[: len(one)])
        for one, other in zip(above.rounds(), below.rounds(), strict=False)
    ]
    if not pairs:
        return None
    return resampling.ratio([one for one, _ in pairs], [other for _, other in pairs])
