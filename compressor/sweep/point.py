"""One point of a sweep in a process of its own: both ends of it.

The process is told its job by a line of JSON on stdin, which then stays open: where it closes,
whoever started the process is gone, killed with -9 perhaps, and the process ends at once. So no
work goes on that nobody waits for, and no two processes write to one folder.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

from compressor.errors import CompressorError


@dataclass(frozen=True)
class Job:
    """What a process is told: a checkpoint, a resolved recipe as TOML, and where the run goes."""

    model: str
    recipe: str
    folder: str
    threads: int
    data_root: str | None = None
    trust_pickle: bool = False


class Child:
    """A process at work on a job."""

    def __init__(self, job: Job, cwd: str | None = None) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # Where this process imports from the working directory, so may the new one.
        here = {"", str(Path.cwd())} & set(sys.path)
        self._process = subprocess.Popen(
            [sys.executable, *([] if here else ["-P"]), "-m", "compressor.sweep.point"],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
            start_new_session=True,  # Ctrl-C is for whoever started it, who ends it
        )
        try:
            pipe = cast(IO[bytes], self._process.stdin)
            pipe.write(json.dumps(asdict(job)).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # it has died already; its exit code tells

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def error(self) -> str | None:
        """Once it has ended, why it failed, in one line; None where it did not."""
        code = self._process.wait()
        if code == 0:
            return None
        if code < 0:
            return f"its process was killed by signal {-code} ({signal.strsignal(-code)})"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"its process ended with {code}"

    def end(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._said.close()


def run(job: Job) -> None:
    """The run of a job, resumed where it was begun. Raises :class:`CompressorError`."""
    from compressor import api, pipeline
    from compressor.progress import Progress
    from compressor.recipe import Recipe

    recipe = Recipe.from_toml(job.recipe)
    network = api.network_of(job.model, recipe, trust_pickle=job.trust_pickle)
    data = api.load_data(recipe, network, job.data_root)
    pipeline.Run(network, recipe, data, Path(job.folder), Progress()).execute(resume=True)


def main() -> None:
    """The process itself."""
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run(job)
    except CompressorError as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def _end_with_parent() -> None:
    # Not by sys.stdin, whose lock a thread must not hold while the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
