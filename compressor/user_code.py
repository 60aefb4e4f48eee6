"""Running what the user wrote: ``--arch FILE.py:build`` and ``--data FILE.py:make``.

Their file may import what lies beside it, may print (to stderr), and may raise: an exception
becomes one line that names the user's own file and line, not ours.
"""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError


def function(path: Path, name: str, option: str, failure: type[CompressorError]) -> Any:
    """``name``, a function or class, from the Python file ``path``, which is run for it.

    Raises ``failure`` for a missing file or name, and for what the file itself raises.
    """
    where = f"{option} {path}"
    if not path.is_file():
        raise failure(f"{where}:{name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise failure(f"{where}:{name}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    with running(path, where, failure):
        spec.loader.exec_module(module)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        raise failure(f"{where}:{name}: {path} defines no function or class {name!r}")
    return found


@contextlib.contextmanager
def running(path: Path, what: str, failure: type[CompressorError]) -> Iterator[None]:
    """Imports from beside the file work, its prints go to stderr, what it raises is explained."""
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except CompressorError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join([f"{type(error).__name__}:", *str(error).split()])
        raise failure(f"{what} raised {said}{_line_in(path, error)}") from error
    finally:
        sys.path.remove(beside)


def _line_in(path: Path, error: BaseException) -> str:
    """Where in the user's own file it happened, if there."""
    if isinstance(error, SyntaxError):
        return ""  # its message tells file and line
    frames = traceback.extract_tb(error.__traceback__)
    here = path.resolve()
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == here]
    return f" (line {lines[-1]})" if lines else ""
