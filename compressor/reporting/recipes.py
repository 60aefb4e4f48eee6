"""The recipe of a report, as people write it."""

from typing import Any

import tomli_w


def toml(report: dict[str, Any]) -> str:
    """As ``recipe.toml`` has it."""
    return tomli_w.dumps(report["recipe"])
