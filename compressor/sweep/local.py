"""Points in processes of this machine."""

import time
from collections import deque
from collections.abc import Generator, Mapping

from compressor.sweep.point import Child, Job

POLL_SECONDS = 0.05


def run(jobs: Mapping[str, Job], count: int) -> Generator[tuple[str, str | None], None, None]:
    """Run jobs (by name), at most ``count`` at a time; yields name and error as each ends.

    A process that crashes or is killed is its own job's error. Those still at work end with this.
    """
    waiting, running = deque(jobs.items()), dict[str, Child]()
    try:
        while waiting or running:
            while waiting and len(running) < count:
                name, job = waiting.popleft()
                running[name] = Child(job)
            ended = [name for name, child in running.items() if child.ended()]
            for name in ended:
                child = running.pop(name)
                error = child.error()
                child.end()
                yield name, error
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for child in running.values():
            child.end()
