"""Reading a report back: of this schema, whole, and with finite figures."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from compressor.errors import LoadError
from compressor.files import REPORT

Json = dict[str, Any]

SCHEMA = 2
"""What ``schema`` is in the reports that this version writes and reads."""


def text() -> str:
    """The JSON Schema of a report, which comes with the package."""
    return resources.files(__package__).joinpath("report.schema.json").read_text("utf-8")


def read(path: Path) -> Json:
    """The report in a file, or in the folder of a run.

    Raises :class:`LoadError` where there is none, or it is damaged, or of another schema.
    """
    if path.is_dir():
        path = path / REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_finite)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LoadError(
            f"{path}: {reason}; give the folder of a finished run or its {REPORT}"
        ) from None
    except (ValueError, RecursionError):
        raise LoadError(f"{path} is damaged: it is not JSON; repeat the run") from None
    if not isinstance(found, dict) or "schema" not in found or "stages" not in found:
        raise LoadError(f"{path} is not a report of a run: give a run's folder or its {REPORT}")
    if found["schema"] != SCHEMA:
        raise LoadError(
            f"{path} is a report of schema {found['schema']!r}, and this version reads {SCHEMA}: "
            "repeat the run, or read it with the version that wrote it"
        )
    return found


def _not_finite(word: str) -> NoReturn:
    raise ValueError(word)
