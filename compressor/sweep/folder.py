"""The folder of a sweep: whose it is, what is finished in it, and who is at work there.

::

    sweep.json            what it is of, and a row for each point; rewritten as points end
    points/DIGEST/        the folder of an ordinary run; DIGEST is of all that decides its bytes
    sweep.md, *.svg       the table and the plots, at the end

A point is finished where its ``report.json``, which a run writes last, is of this very point and
the files that it names are there. Nothing else is believed, so whatever was killed when, nothing is
lost and nothing counts twice.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import OutputError
from compressor.files import REPORT, explained, read_json, write_atomically

Json = dict[str, Any]
SWEEP, POINTS, LOCK = "sweep.json", "points", ".lock"
STAGES = ".stages"
"""Where a run keeps what it has finished of itself (``workspace``)."""


class SweepFolder:
    """One sweep's folder. ``identity`` is what all its points have in common."""

    def __init__(self, path: Path, identity: Json) -> None:
        self.path = path
        self.identity = identity

    def earlier(self, *, force: bool) -> Json:
        """The content of ``sweep.json`` that is to be gone on with; empty where there is none.

        Raises :class:`OutputError` for a folder of another sweep, or of something else, that
        ``force`` does not give up. Writes nothing.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file: choose another folder with -o")
        if force:
            return {}
        found = read_json(self.path / SWEEP)
        if found is None:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise OutputError(
                    f"{self.path} holds other files and no sweep: choose another folder with -o"
                )
            return {}
        changed = [
            key for key, value in self.identity.items() if found.get("of", {}).get(key) != value
        ]
        if changed:
            raise OutputError(
                f"{self.path} is of another sweep ({', '.join(changed)} changed): choose another "
                "folder with -o, or start over with --force"
            )
        return found

    @contextmanager
    def at_work(self, *, force: bool) -> Iterator[None]:
        """Have the folder to oneself; with ``force``, emptied of an earlier sweep's points.

        Raises :class:`OutputError` where another sweep is at work in it.
        """
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with _alone(self.path / LOCK, f"another sweep is at work in {self.path}"):
            if force and (self.path / SWEEP).exists():
                with explained(self.path):
                    shutil.rmtree(self.path / POINTS, ignore_errors=True)
                    (self.path / SWEEP).unlink()
            yield

    def place(self, fingerprint: Json) -> Path:
        """The folder of the point with that fingerprint (``pipeline.fingerprint``)."""
        content = json.dumps(fingerprint, sort_keys=True).encode()
        return self.path / POINTS / hashlib.sha256(content).hexdigest()[:16]

    def write(self, content: Json) -> None:
        """Rewrite ``sweep.json``."""
        write_atomically(self.path / SWEEP, (json.dumps(content, indent=1) + "\n").encode())


def finished(place: Path, fingerprint: Json) -> Json | None:
    """The report of a finished point, or None where it has yet to run."""
    report = read_json(place / REPORT)
    if report is None or report.get("fingerprint") != fingerprint:
        return None
    whole = all((place / name).exists() for name in report["files"].values())
    return report if whole else None


def clear(place: Path, fingerprint: Json) -> None:
    """Remove what is left of an unfinished point, unless a run can take it up."""
    if read_json(place / STAGES / "run.json") != fingerprint:
        with explained(place):
            if place.exists():
                shutil.rmtree(place)


@contextmanager
def _alone(path: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock that the system takes back when this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        yield
        return
    with explained(path):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{otherwise}: wait for it, or choose another with -o") from None
        except OSError:
            pass  # a disk that has no locks
        yield
