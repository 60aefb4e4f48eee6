"""Writing files so that a reader never sees half of one, and telling why where it fails."""

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from compressor.errors import OutputError

ONNX, DATA = ".onnx", ".data"
"""How ONNX files end, and what follows their name in that of their weights' file, if any."""
REPORT = "report.json"
PAGES = ("report.html", "report.md")
"""A run's report for people; whoever deletes them can have them made again from :data:`REPORT`."""

Chunks = Iterable[bytes | memoryview]
"""A file's content, piece by piece."""


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
    write_chunks(path, (content,))


def write_chunks(path: Path, chunks: Chunks) -> None:
    """:func:`write_atomically` piece by piece, for what need not lie in memory as a whole."""
    write_together({path: chunks})


def write_together(contents: Mapping[Path, Chunks]) -> None:
    """Several files, each as :func:`write_chunks` does: all are on disk before one is in place.

    What a file keeps beside itself comes before it in ``contents``. While that is replaced, the
    file that was there before goes: at no moment does one stand beside what another one kept.
    """
    with ExitStack() as parts:
        for path, chunks in contents.items():
            part = _part(path)
            parts.callback(part.unlink, missing_ok=True)
            with explained(path), part.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            with explained(path):
                if path.suffix == DATA:
                    path.with_suffix("").unlink(missing_ok=True)
                _part(path).replace(path)
                if path.suffix == ONNX and beside(path) not in contents:
                    beside(path).unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """Where an ONNX file keeps its weights, if it does not hold them itself."""
    return path.with_name(path.name + DATA)


def parts_of(path: Path) -> list[Path]:
    """A file, and the one that it keeps beside itself, if any."""
    return [path, *([beside(path)] if path.suffix == ONNX and beside(path).is_file() else [])]


def size_of(path: Path) -> int:
    """The bytes of a file and of what it keeps beside itself."""
    return sum(each.stat().st_size for each in parts_of(path))


def check_absent(path: Path, *, force: bool) -> None:
    """Raise :class:`OutputError` where ``path`` is there, or something beside it, to overwrite."""
    for each in parts_of(path):
        if each.exists() and not force:
            raise OutputError(f"{each} exists: add --force to overwrite it")


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


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file's bytes, a few million at a time."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def gzip_size(path: Path, threads: int = 1) -> int:
    """What gzip makes of a file, in bytes, at level 9; of a large one at 6, as servers do it.

    What the file keeps beside itself counts, zipped on its own. A large one is taken in parts, by
    ``threads`` at once: that adds a few bytes in a million.
    """
    return sum(_gzip_size(each, threads) for each in parts_of(path))


def _gzip_size(path: Path, threads: int) -> int:
    if path.stat().st_size < 4 * _PIECE:
        coder = zlib.compressobj(9, zlib.DEFLATED, 31)
        return sum(len(coder.compress(piece)) for piece in pieces_of(path)) + len(coder.flush())
    count = -(-path.stat().st_size // _PIECE)

    def part(at: int) -> int:
        with path.open("rb") as file:
            file.seek(at * _PIECE)
            return len(zlib.compress(file.read(_PIECE), 6, 31))

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(part, range(count)))


_PIECE = 1 << 24


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


def digest(*paths: Path) -> str:
    """SHA-256 of files' bytes, one after another, in hexadecimal."""
    total = hashlib.sha256()
    for path in paths:
        for piece in pieces_of(path):
            total.update(piece)
    return total.hexdigest()
