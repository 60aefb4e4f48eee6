"""Settings that may differ from layer to layer: ``0.25``, ``conv=0.5,fc=1.5``, ``layer1.*=0.3``.

One grammar serves every stage, the recipe file and the command line. A rule is ``PATTERN=VALUE``.
The pattern is ``conv`` (every convolution), ``fc`` (every linear layer) or a shell-style pattern
on the layer's full name; a bare value is the rule ``*=VALUE``. Where several rules fit a layer,
the last one wins, so general rules stand first. A layer that no rule fits is left alone.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from compressor.errors import StageError, UsageError

KINDS = ("conv", "fc")


@dataclass(frozen=True)
class PerLayer:
    """Ordered rules ``(pattern, value)``, for example ``(("*", 0.5), ("fc", 1.5))``.

    Values are what the setting's own check makes of them: numbers, or words such as "ternary".
    """

    rules: tuple[tuple[str, Any], ...]

    @classmethod
    def parse(cls, source: object, value: Callable[[object], Any]) -> "PerLayer":
        """Rules from a number, a string of the grammar above, a table, or another ``PerLayer``.

        ``value`` checks and converts one value and raises :class:`UsageError` where it cannot be.
        """
        rules: dict[str, Any] = {}
        for pattern, item in _pairs(source):
            rules.pop(pattern, None)  # repeated, a pattern stands where its last rule does
            rules[pattern] = value(item)
        return cls(tuple(rules.items()))

    def table(self) -> dict[str, Any]:
        """The rules as an ordered table, the form in which recipes store them."""
        return dict(self.rules)

    def resolve(self, kinds: Mapping[str, str]) -> dict[str, Any]:
        """The value of every layer that a rule fits, in the network's order.

        ``kinds`` maps layer names to ``conv`` or ``fc``. Raises :class:`StageError` for a rule
        that fits no layer: a misspelt name must not pass as a setting that was applied. A kind
        that the network lacks may stand beside one that it has, but not alone.
        """
        for pattern, _ in self.rules:
            if pattern not in {"*", *KINDS} and not any(
                _fits(pattern, n, k) for n, k in kinds.items()
            ):
                raise StageError(_no_such_layer(pattern, kinds))
        values = {}
        for name, kind in kinds.items():
            for pattern, value in self.rules:
                if _fits(pattern, name, kind):
                    values[name] = value
        if self.rules and not values:
            named = ", ".join(pattern for pattern, _ in self.rules)
            found = ", ".join(list(kinds)[:6]) or "neither a convolution nor a linear layer"
            raise StageError(f"{named} fits no layer of this network: it has {found}")
        return values


def _fits(pattern: str, name: str, kind: str) -> bool:
    return pattern == kind if pattern in KINDS else fnmatchcase(name, pattern)


def _pairs(source: object) -> Iterable[tuple[str, object]]:
    if isinstance(source, PerLayer):
        return source.rules
    if isinstance(source, Mapping):
        return [(str(pattern), item) for pattern, item in source.items()]
    if not isinstance(source, str):
        return [("*", source)]
    pairs = []
    for rule in source.split(","):
        pattern, equals, item = (part.strip() for part in rule.rpartition("="))
        if not item or (equals and not pattern):
            raise UsageError(
                f"{source!r} is not a setting: give one value for all layers (0.25) or "
                "PATTERN=VALUE rules with commas between them (conv=0.5,fc=1.5)"
            )
        pairs.append((pattern or "*", item))
    return pairs


def _no_such_layer(pattern: str, kinds: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(pattern, list(kinds), n=3) or list(kinds)[:6]
    return (
        f"no layer is called {pattern!r}: use conv, fc or a pattern on the {len(kinds)} "
        f"layer names, such as {', '.join(near)}"
    )
