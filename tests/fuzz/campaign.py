"""Decode any number of mutants, and tell what they came to.

    python -m tests.fuzz.campaign [--count 100000] [--numpy-count 0] [--seed 0] [--workers 1]
                                  [-o FILE.json]

Mutants are decoded in child processes, thousands in each, under a limit of memory. A child tells
which mutant it works on in memory that it shares with its parent, so that a crash, and whatever
takes too long, has a number: `tests.fuzz.mutants.mutant(number)` makes it again. The NumPy backend
is slower, and gets a part of its own; what it makes of true checksums must be what C makes of them.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import resource
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from compressor.artifact import decode
from compressor.benchmarks.environment import environment
from compressor.coding import native
from compressor.errors import ArtifactError
from tests.fuzz.artifacts import SINGLE, artifacts, in_segments
from tests.fuzz.mutants import (
    LIMITS,
    SEALED,
    Finding,
    Mutant,
    checksums_taken_as_true,
    mutant,
    outcome,
)

CHUNK = 50_000
SLOW = 1.0
"""Seconds of processor time that no mutant may take."""
HANG = 30.0
"""Seconds after which a child is killed: nothing that comes to an end takes so long."""
SLACK = 64 << 20
"""Bytes that decoding may take beside twice what is declared."""
_THOROUGH = 5  # of those with true checksums, every so many are decoded in all ways there are
_SEEDS = 1 << 40  # numbers of one seed


@dataclass
class Tally:
    """What mutants came to; it adds up."""

    mutants: int = 0
    sealed: int = 0
    reached: int = 0
    families: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)
    growth: int = 0

    def add(self, other: "Tally") -> None:
        """Take in what another one has."""
        self.mutants += other.mutants
        self.sealed += other.sealed
        self.reached += other.reached
        self.families += other.families
        self.kinds += other.kinds
        self.findings += other.findings
        self.slowest = max(self.slowest, other.slowest)
        self.growth = max(self.growth, other.growth)

    def found(self, number: int, kind: str, what: str) -> None:
        """Note what no mutant may do."""
        self.findings.append({"number": number, "kind": kind, "what": what})

    def described(self) -> dict[str, Any]:
        """What a result file says."""
        seconds, number = self.slowest
        return {
            "mutants": self.mutants,
            "with_true_checksums": self.sealed,
            "that_reached_a_decoder": self.reached,
            "findings": self.findings,
            "slowest": {"cpu_seconds": round(seconds, 3), "number": number},
            "peak_memory_growth_bytes": self.growth,
            "mutations": dict(self.kinds.most_common()),
            "outcomes": dict(self.families.most_common()),
        }


Judge = Callable[[int, str, Tally], None]


def decode_one(number: int, backend: str, tally: Tally) -> None:
    """Decode one mutant, and count what it comes to."""
    found = mutant(number)
    tally.mutants += 1
    tally.sealed += found.sealed
    tally.kinds[found.kind] += 1
    begin = time.process_time()
    try:
        families = outcome(found, LIMITS[backend], number % (_THOROUGH * SEALED) == 0)
        took = time.process_time() - begin
        if backend == "numpy" and found.sealed and native.built() is not None:
            _compare(found, backend)
    except Exception as error:
        took = time.process_time() - begin
        what = str(error) if isinstance(error, Finding) else f"{type(error).__name__}: {error}"
        tally.found(number, found.kind, what)
        families = []
    tally.families.update(families)
    tally.reached += found.sealed and any("decoded" in f or "tensor" in f for f in families)
    if took > tally.slowest[0]:
        tally.slowest = took, number
    if took > SLOW:
        tally.found(number, found.kind, f"took {took:.1f} s")


def _compare(found: Mutant, backend: str) -> None:
    """Raise unless both backends make the same of a mutant."""
    both = []
    for name in native.BACKENDS:
        os.environ[native.VARIABLE] = name
        with checksums_taken_as_true(), in_segments():
            both.append(_whole(found.blob, backend))
    os.environ[native.VARIABLE] = backend
    if both[0] != both[1]:
        raise Finding(f"backends differ: {both[0]} and {both[1]}")


def _whole(blob: bytes, backend: str) -> list[str]:
    found = []
    try:
        artifact = decode(blob, limits=LIMITS[backend])
    except ArtifactError as error:
        return [str(error)]
    for name in artifact.names:
        try:
            found.append(f"{name}: {zlib.crc32(artifact.tensor(name).tobytes()):08x}")
        except ArtifactError as error:
            found.append(str(error))
    return found


def work(first: int, stop: int, backend: str, judge: Judge, board: Any, pipe: Connection) -> None:
    """Decode mutants ``first`` to ``stop`` - 1 in a process of their own."""
    artifacts()
    os.environ[native.VARIABLE] = backend
    tally = Tally()
    for number in range(0, SEALED * SINGLE, SEALED):  # what is made once is no mutant's
        decode_one(number, backend, Tally())
    _limit_memory(2 * LIMITS[backend].max_total_bytes + SLACK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, stop):
        board.value = number
        judge(number, backend, tally)
    tally.growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    pipe.send(tally)


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more, where the system tells how many it has."""
    listing = Path("/proc/self/statm")
    if listing.is_file():
        now = int(listing.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))


class Child:
    """A process, what it works on, and since when."""

    def __init__(self, first: int, stop: int, backend: str, judge: Judge) -> None:
        self.first, self.stop = first, stop
        # Not forked from this process, which may have threads, but from one that has nothing else.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.fuzz.mutants"])
        self.board = context.RawValue(ctypes.c_uint64, first)
        self.pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(
            target=work, args=(first, stop, backend, judge, self.board, theirs)
        )
        self.process.start()
        theirs.close()
        self.number, self.since, self.hung = first, time.monotonic(), False

    def works(self) -> bool:
        """Whether it is still at it; if it hangs it is killed."""
        now = time.monotonic()
        if self.board.value != self.number:
            self.number, self.since = self.board.value, now
        elif now - self.since > HANG:
            self.hung = True
            self.process.kill()
            self.process.join()
        return self.process.is_alive() and not self.pipe.poll()

    def result(self) -> tuple[Tally, list[tuple[int, int]]]:
        """What it found, and the ranges to do again: those that a crash took with it."""
        try:
            tally: Tally = self.pipe.recv()
            self.process.join()
            return tally, []
        except EOFError:
            self.process.join()
        number, tally = self.board.value, Tally(mutants=1)
        how = f"hung for {HANG} s" if self.hung else f"ended with {self.process.exitcode}"
        tally.found(number, mutant(number).kind, f"the process {how}")
        return tally, [(self.first, number), (number + 1, self.stop)]


def run(
    first: int,
    count: int,
    backend: str,
    *,
    workers: int = 1,
    chunk: int = CHUNK,
    judge: Judge = decode_one,
) -> Tally:
    """Decode ``count`` mutants from number ``first`` on; progress goes to stderr."""
    stop = first + count
    left = deque((at, min(at + chunk, stop)) for at in range(first, stop, chunk))
    tally, children = Tally(), list[Child]()
    begin = told = time.monotonic()
    while left or children:
        while left and len(children) < workers:
            low, high = left.popleft()
            if low < high:
                children.append(Child(low, high, backend, judge))
        time.sleep(0.02)
        ended = [child for child in children if not child.works()]
        children = [child for child in children if child not in ended]
        for child in ended:
            found, again = child.result()
            tally.add(found)
            left.extendleft(reversed(again))
        if time.monotonic() - told > 5 or not (left or children):
            told = time.monotonic()
            _tell(backend, tally, count, told - begin)
    return tally


def _tell(backend: str, tally: Tally, count: int, seconds: float) -> None:
    line = f"{backend}: {tally.mutants:,} of {count:,} mutants, {tally.mutants / seconds:,.0f}/s"
    print(f"{line}, {len(tally.findings)} findings", file=sys.stderr)


def main() -> None:
    """Read the command line; exit with 1 where a mutant did what none may."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign")
    parser.add_argument("--count", type=int, default=100_000, help="mutants for the C core")
    parser.add_argument("--numpy-count", type=int, default=0, help="mutants for NumPy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="where the result goes")
    options = parser.parse_args()
    record: dict[str, Any] = {"environment": environment()}
    for backend, count in (("c", options.count), ("numpy", options.numpy_count)):
        begin = time.monotonic()
        tally = run(options.seed * _SEEDS, count, backend, workers=options.workers)
        record[backend] = {"seconds": round(time.monotonic() - begin, 1), **tally.described()}
    text = json.dumps(record, indent=1) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")
    sys.exit(any(record[backend]["findings"] for backend in ("c", "numpy")))


if __name__ == "__main__":
    main()
