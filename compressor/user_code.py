"""Running what the user wrote: ``--arch FILE.py:build``, ``--data FILE.py:make`` and the like.

Their file may import what lies beside it or is of its own package, may print (to stderr), and may
raise: an exception becomes one line that names the user's own file and line. Their traceback,
without our part of it, is the error's note, which the command line shows above that line.
"""

import ast
import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.errors import CompressorError

_brought: dict[str, tuple[str, ...]] = {}
"""Modules that users' files brought in, with the folders they came from: those of one repository
are not what another one, later in the same process, means by the same name."""


def function(where: str | Path, name: str, option: str, failure: type[CompressorError]) -> Any:
    """``name``, a function or class, from a Python file or, by its dotted name, a module.

    Raises ``failure`` for a missing file, module or name, and for what the code itself raises.
    """
    found = getattr(_module(str(where), name, option, failure), name, None)
    if not callable(found):
        raise failure(f"{option} {where}:{name}: {where} defines no function or class {name!r}")
    return found


@contextlib.contextmanager
def running(where: str | Path, what: str, failure: type[CompressorError]) -> Iterator[None]:
    """Imports of the file's own work, its prints go to stderr, what it raises is explained."""
    where = str(where)
    first, last = _folders(where)
    before, path = set(sys.modules), list(sys.path)
    for name in [name for name, folders in _brought.items() if folders != first]:
        sys.modules.pop(name, None)
        del _brought[name]
    sys.path[:] = [*first, *path, *last]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except CompressorError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join([f"{type(error).__name__}:", *str(error).split()])
        refusal = failure(f"{what} raised {said}{_line_in(where, error)}")
        note = own_traceback(error)
        if note:
            refusal.add_note(note)
        raise refusal from error
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], first):
                _brought[name] = first


def own_traceback(error: BaseException) -> str:
    """The traceback from the first line of the user's on; "" where none of it is theirs."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    own = [_is_own(frame) for frame in told.stack]
    if not any(own):
        return "".join(told.format_exception_only()) if isinstance(error, SyntaxError) else ""
    told.stack = traceback.StackSummary.from_list(told.stack[own.index(True) :])
    told.__cause__ = told.__context__ = None
    return "".join(told.format()).rstrip("\n")


def own_line(error: BaseException) -> str:
    """The last line of the user's that led to an error, and where it is; "" where none did."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame)]
    return f"at {Path(own[-1].filename).name}:{own[-1].lineno} ({own[-1].line})" if own else ""


def _is_own(frame: traceback.FrameSummary) -> bool:
    ours = (str(Path(__file__).resolve().parent.parent), str(Path(contextlib.__file__).parent))
    made = ("<frozen", "<eval_with_key>")  # by Python, and by torch.fx
    return not (frame.filename.startswith(made) or _below(frame.filename, ours))


def _below(filename: str, folders: tuple[str, ...]) -> bool:
    """Whether a file is ours, Python's or torch's. A user's own may lie below our folder too."""
    path = Path(filename).resolve()
    if "site-packages" in path.parts:
        return True
    parts = ("compressor", "cli", "models", "benchmarks")
    ours = any(path.is_relative_to(Path(folders[0], part)) for part in parts)
    return ours or path.is_relative_to(folders[1])


def _module(where: str, name: str, option: str, failure: type[CompressorError]) -> ModuleType:
    what = f"{option} {where}"
    if not is_file(where):
        with running(where, what, failure):
            try:
                return importlib.import_module(where)
            except ModuleNotFoundError as error:
                if error.name is not None and f"{where}.".startswith(f"{error.name}."):
                    raise failure(
                        f"{what}:{name}: no module {error.name} is installed or in this folder; "
                        f"a file is given by its path, FILE.py:{name}"
                    ) from None
                raise
    path = Path(where)
    if not path.is_file():
        raise failure(f"{what}:{name}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise failure(f"{what}:{name}: {path} is not a Python file")
    root, dotted = _dotted(path)
    with running(where, what, failure):
        if dotted != path.stem:
            _make_room(dotted.partition(".")[0], root, what, failure)
            return importlib.import_module(dotted)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
    return module


def is_file(where: str) -> bool:
    """Whether what stands before the colon is a file rather than a module's dotted name."""
    dotted = all(name.isidentifier() for name in where.split("."))
    return where.endswith(".py") or Path(where).is_file() or not dotted


def _dotted(path: Path) -> tuple[Path, str]:
    """The folder that a file's package lies in, and the file's name from there.

    A package goes up as far as there are ``__init__.py``, or relative imports ask for.
    """
    names, folder, least = [path.stem], path.resolve().parent, _levels(path)
    while folder.name.isidentifier() and ((folder / "__init__.py").is_file() or least > 0):
        names.insert(0, folder.name)
        folder, least = folder.parent, least - 1
    return folder, ".".join(names).removesuffix(".__init__")


def _levels(path: Path) -> int:
    """How many folders up the file's relative imports reach."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return 0  # whoever runs it will be told
    return max((n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)), default=0)


def _folders(where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where imports look first, and last: the package's folder, this one, and beside the file."""
    here = str(Path.cwd())
    if not is_file(where):
        return (here,), ()
    path = Path(where)
    root, dotted = _dotted(path)
    beside = str(path.resolve().parent)
    if dotted == path.stem:
        return (beside, here), ()
    return (str(root), here), (beside,)


def _make_room(top: str, root: Path, what: str, failure: type[CompressorError]) -> None:
    """Another package of the name, that somebody has imported before, is not the user's."""
    if top in sys.stdlib_module_names:
        raise failure(f"{what}: the folder {top} has the name of a module of Python's: rename it")
    if top in sys.modules and not _lies_in(sys.modules[top], (str(root),)):
        for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[name]


def _lies_in(module: ModuleType, folders: tuple[str, ...]) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    found = [Path(place).resolve() for place in places if isinstance(place, str)]
    return any(
        path.is_relative_to(folder) and "site-packages" not in path.parts
        for path in found
        for folder in folders
    )


def _line_in(where: str, error: BaseException) -> str:
    """Where in the user's own file it happened, if there."""
    if isinstance(error, SyntaxError) or not is_file(where):
        return ""  # its message, or the traceback, tells file and line
    here = Path(where).resolve()
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == here]
    return f" (line {lines[-1]})" if lines else ""
