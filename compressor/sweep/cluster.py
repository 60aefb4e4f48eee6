"""Points on an existing Dask cluster (extra ``cluster``).

A task takes the checkpoint's bytes and gives back the files of its run, which this side writes: so
workers need no disk in common, a task that Dask repeats because its worker died repeats nothing
that is already written, and every folder has one writer.
"""

import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import OutputError, UsageError
from compressor.files import REPORT, write_atomically
from compressor.progress import Progress
from compressor.sweep.point import Child, Job

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 5
POLL_SECONDS = 0.1

Outcome = tuple[str | None, dict[str, bytes]]
"""Why a task failed, or None; the files of its run."""


def connect(address: str) -> "Client":
    """A client of the scheduler at ``address``.

    Raises :class:`UsageError` where Dask is not installed or the address cannot be one,
    :class:`OutputError` where nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--scheduler needs Dask: pip install 'compressor[cluster]'") from None
    port = address.rpartition("://")[2].rpartition(":")[2]
    if not port.isdigit():
        raise UsageError(f"--scheduler {address}: give HOST:PORT, such as 127.0.0.1:8786")
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError:
        raise OutputError(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS} seconds: "
            "start one with 'dask scheduler', or correct --scheduler"
        ) from None


def run(
    jobs: Mapping[str, Job], client: "Client", cwd: Path, progress: Progress
) -> Generator[tuple[str, str | None], None, None]:
    """Run jobs (by name) as tasks; yields name and error as each ends, its files written.

    Paths in a job that are not absolute are below ``cwd``, where a worker has such a folder.
    """
    from distributed import as_completed

    if not client.scheduler_info()["workers"]:
        progress.note("the cluster has no worker yet: waiting for one")
    run_id = uuid.uuid4().hex
    names = {}
    # One task of its own, not part of each: Dask makes it anew where the worker that held it dies.
    models = {path: Path(path).read_bytes() for path in {job.model for job in jobs.values()}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        held = {
            path: client.submit(bytes, content, key=f"compress-model-{number}-{run_id}")
            for number, (path, content) in enumerate(models.items())
        }
    for name, job in jobs.items():
        key = f"compress-{name}-{run_id}"
        names[client.submit(task, job, held[job.model], str(cwd), key, key=key)] = name
    try:
        for future in as_completed(names, loop=client.loop):
            name = names.pop(future)
            error = _finish(future, Path(jobs[name].folder))
            future.release()  # its files are written: the worker need not keep them
            yield name, error
    finally:
        client.cancel([*names, *held.values()])


def _finish(future: Any, folder: Path) -> str | None:
    """Write what a task gave, the report last; why there is nothing to write."""
    if future.cancelled():
        return "the Dask scheduler is gone, or has dropped it"
    if (raised := future.exception()) is not None:
        return " ".join(f"{type(raised).__name__}: {raised}".split())
    outcome: Outcome = future.result()
    error, files = outcome
    if error is None:
        shutil.rmtree(folder, ignore_errors=True)  # what a run here may have left unfinished
        folder.mkdir(parents=True)
        for name in sorted(files, key=lambda name: name == REPORT):
            write_atomically(folder / name, files[name])
    return error


def task(job: Job, model: bytes, cwd: str, key: str) -> Outcome:
    """On a worker: the run in a process of its own, so that threads and seeds are its alone.

    ``key`` is what Dask calls this task.
    """
    from distributed import get_worker

    # Dask's own scratch: what is left there when a worker is killed, the next one removes.
    with tempfile.TemporaryDirectory(dir=get_worker().local_directory) as scratch:
        checkpoint, folder = Path(scratch) / Path(job.model).name, Path(scratch) / "run"
        checkpoint.write_bytes(model)
        here = replace(job, model=str(checkpoint), folder=str(folder))
        child = Child(here, cwd if Path(cwd).is_dir() else None)
        try:
            while not child.ended():
                if _dropped(key):
                    return "cancelled", {}
                time.sleep(POLL_SECONDS)
            error = child.error()
        finally:
            child.end()
        if error is not None:
            return error, {}
        return None, {path.name: path.read_bytes() for path in folder.iterdir()}


def _dropped(key: str) -> bool:
    """Whether nobody waits for this task any more: Dask does not stop one that is running."""
    from distributed import get_worker

    state = get_worker().state.tasks.get(key)
    return state is None or state.state == "cancelled"
