"""The table of rules, and how a rule reads its operator's arguments."""

from collections.abc import Callable
from typing import Any

from torch import fx

from compressor.channels.propagation import Rule

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the operators of these names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def given(node: fx.Node) -> tuple[Any, ...]:
    """The arguments given by position."""
    return node.args


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """All arguments by name, defaults included."""
    schema = _schema(node)
    found = {each.name: each.default_value for each in schema if each.has_default_value()}
    found |= dict(zip((each.name for each in schema), node.args, strict=False))
    return found | dict(node.kwargs)


def argument_names(node: fx.Node) -> list[str]:
    """The names of all arguments, in order."""
    return [each.name for each in _schema(node)]


def _schema(node: fx.Node) -> Any:
    return node.target._schema.arguments  # type: ignore[union-attr]
