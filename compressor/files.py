"""Writing files so that a reader never sees half of one, and telling why where it fails."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import OutputError

REPORT = "report.json"
PAGES = ("report.html", "report.md")
"""A run's report for people; whoever deletes them can have them made again from :data:`REPORT`."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` from writing ``path`` into one :class:`OutputError` line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"cannot write {path}: the disk is full") from None
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot write {path}: {reason}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path``, flush it to disk, rename it.

    Whatever happens, ``path`` holds either what it held before or all of ``content``. Raises
    :class:`OutputError` where the disk is full or the folder not writable.
    """
    part = _part(path)
    with explained(path):
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def check_folder(folder: Path, *, force: bool, unfinished: bool = False) -> bool:
    """Whether an output folder is in use already; ``unfinished``: by a run to be continued.

    Raises :class:`OutputError` where it is a file, or in use without ``force``.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: choose another folder with -o")
    used = folder.is_dir() and any(folder.iterdir())
    if used and not force:
        what = "holds an unfinished run" if unfinished else "exists and is not empty"
        hint = "--resume to continue it, " if unfinished else ""
        raise OutputError(
            f"{folder} {what}: add {hint}--force to overwrite, or choose another with -o"
        )
    return used


def check_writable(path: Path) -> None:
    """Raise :class:`OutputError` where ``path`` cannot be written: before the work, not after."""
    with explained(path):
        part = _part(path)
        part.touch()
        part.unlink()


def _part(path: Path) -> Path:
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object's content; None where the file is absent or damaged."""
    try:
        return parsed(path.read_bytes())
    except OSError:
        return None


def parsed(text: bytes) -> dict[str, Any] | None:
    """The JSON object that ``text`` is; None where it is none."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
