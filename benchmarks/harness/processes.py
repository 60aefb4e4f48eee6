"""A worker process as the parent sees it: asked one thing at a time, and allowed to die."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, cast

import compressor

Json = dict[str, Any]
SECONDS = 600.0
"""How long a worker may take for one answer."""


class Failed(Exception):
    """A worker that died, hung or reported an error; the message is for people."""


class Process:
    """``python -m compressor.benchmarks.harness.worker``; ends with the ``with`` block."""

    def __init__(self, threads: int) -> None:
        self.errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115 (closed by close)
        home = str(Path(compressor.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "compressor.benchmarks.harness.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=variables,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, request: Json) -> None:
        """Ask; raises :class:`Failed` where nobody is there to hear."""
        pipe = cast(IO[bytes], self.process.stdin)
        try:
            pipe.write(json.dumps(request).encode() + b"\n")
            pipe.flush()
        except OSError:
            raise Failed(self._how_it_ended()) from None

    def receive(self, seconds: float = SECONDS) -> Json:
        """The answer to what was sent. Raises :class:`Failed`."""
        line = self._line(seconds)
        if not line.endswith(b"\n"):
            raise Failed(self._how_it_ended())
        found: Json = json.loads(line)
        if "error" in found:
            raise Failed(found["error"])
        answer: Json = found["ok"]
        return answer

    def ask(self, request: Json, seconds: float = SECONDS) -> Json:
        self.send(request)
        return self.receive(seconds)

    def close(self) -> None:
        """End it, politely at first."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()

    def _line(self, seconds: float) -> bytes:
        """One line, read as it comes: a worker that hangs in the midst of it is noticed."""
        descriptor = cast(IO[bytes], self.process.stdout).fileno()
        parts: list[bytes] = []
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not (parts and parts[-1].endswith(b"\n")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.process.kill()
                    raise Failed(f"the runtime gave no answer in {seconds:.0f} s and was ended")
                part = os.read(descriptor, 1 << 20)
                if not part:
                    break
                parts.append(part)
        return b"".join(parts)

    def _how_it_ended(self) -> str:
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        said = f"; it said: {lines[-1][:300]}" if lines else ""
        return f"the runtime crashed in its process ({how}){said}"
