"""Recipes: the stages that a run goes through, as Python objects, TOML and options.

A recipe is written three ways that mean the same. This module turns each into the others; it
imports no torch, so ``compress --help`` and shell completion answer at once.
"""

import dataclasses
import hashlib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import tomli_w

from compressor.errors import OutputError, UsageError
from compressor.per_layer import PerLayer
from compressor.settings import (
    Calibrate,
    Channels,
    DataSpec,
    Encode,
    Export,
    Prune,
    Share,
    Training,
)
from compressor.settings.checks import integer, number, settle

# The settings that bring a section in; the others have defaults that nobody asked for.
CHIEF = {
    "channels": ("ratio", "target_macs", "target_latency"),
    "prune": ("sensitivity", "sparsity"),
    "share": ("bits",),
    "calibrate": ("noise",),
    "data": ("spec",),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a run, apart from the model and the data themselves.

    Stages that are ``None`` are left out; those present run in the paper's order. What is
    ``None`` elsewhere is found out when a run begins and stands in the recipe that it writes:
    ``arch`` and ``input_shape`` from the checkpoint, ``threads`` from the machine (sums depend on
    how many threads share them, so the count belongs to what repeats a run to the byte).
    """

    channels: Channels | None = None
    prune: Prune | None = None
    share: Share | None = None
    calibrate: Calibrate | None = None
    encode: Encode = field(default_factory=Encode)
    export: Export = field(default_factory=Export)
    data: DataSpec | None = None
    arch: str | None = None
    task: str | None = None
    input_shape: tuple[int, ...] | None = None
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.share is not None and self.calibrate is not None:
            raise UsageError("share and calibrate are two ways to do one thing: leave one out")
        settle(self, seed=integer("seed", self.seed, 0, 2**32 - 1))
        if self.threads is not None:
            settle(self, threads=integer("threads", self.threads, 1, 1024))
        if self.input_shape is not None:
            if not self.input_shape:
                raise UsageError("input_shape is empty: give the sizes of one input, C, H, W")
            sizes = tuple(integer("input_shape", size, 1, 1 << 20) for size in self.input_shape)
            settle(self, input_shape=sizes)

    @property
    def trainings(self) -> dict[str, Training]:
        """The trainings of the stages that are present, by dotted name: ``prune.retrain``, ..."""
        stages = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            f"{stage}.{item.name}": getattr(settings, item.name)
            for stage, settings in stages.items()
            if dataclasses.is_dataclass(settings)
            for item in fields(settings)
            if isinstance(getattr(settings, item.name), Training)
        }

    def to_toml(self) -> str:
        """The recipe as TOML: every setting, also the defaults, so that nothing is implied."""
        return tomli_w.dumps(to_table(self))

    def digest(self) -> str:
        """SHA-256 of the resolved recipe; two runs with one digest, model and data agree."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    @classmethod
    def from_toml(cls, text: str, name: str = "recipe") -> "Recipe":
        """Parse and check; raises :class:`UsageError` that names the key and what it may be."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{name} is not valid TOML: {error}") from None
        return typing.cast(Recipe, from_table(cls, table, f"{name}: "))

    @classmethod
    def read(cls, source: str | Path) -> "Recipe":
        """A recipe from a TOML file, or one shipped with the tool by its bare name."""
        path = Path(source)
        shipped = Path(__file__).parent / "recipes" / f"{source}.toml"
        if not path.exists() and shipped.exists():
            path = shipped
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"), str(source))
        except (OSError, UnicodeDecodeError) as error:
            names = ", ".join(shipped_recipes())
            reason = (getattr(error, "strerror", None) or "not a text file").lower()
            raise OutputError(
                f"recipe {source} cannot be read ({reason}): give a TOML file or one of {names}"
            ) from None

    def with_settings(self, settings: Mapping[str, object]) -> "Recipe":
        """A copy with dotted settings changed, as ``--set prune.retrain.lr=0.01`` asks."""
        table = to_table(self)
        for section in ("channels", "prune"):  # of their goals, one takes the place of another
            if any(f"{section}.{goal}" in settings for goal in CHIEF[section]):
                for goal in CHIEF[section]:
                    table.get(section, {}).pop(goal, None)
        for key, value in settings.items():
            _place(table, key, value)
        for key in settings:
            section, dot, _ = key.partition(".")
            chiefs = [f"{section}.{chief}" for chief in CHIEF.get(section, ())]
            absent = dot and chiefs and getattr(self, section) is None
            if absent and not any(chief in settings for chief in chiefs):
                needed = " or ".join(chiefs)
                raise UsageError(f"{key} has no effect without {needed}: give that too")
        return typing.cast(Recipe, from_table(Recipe, table))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the tool."""
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.toml"))


def to_table(settings: Any) -> dict[str, Any]:
    """Settings (a dataclass of this module) as a table of plain values."""
    table: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, PerLayer):
            table[item.name] = value.table()
        elif dataclasses.is_dataclass(value):
            table[item.name] = to_table(value)
        elif isinstance(value, tuple):
            table[item.name] = list(value)
        elif value is not None:
            table[item.name] = value
    # TOML wants plain values before tables.
    return dict(sorted(table.items(), key=lambda pair: isinstance(pair[1], dict)))


def _place(table: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {key}: {parent} is a value, not a section")
    table[last] = value


def from_table(kind: type, table: Mapping[str, Any], where: str = "", section: str = "") -> Any:
    """A table as settings of ``kind``.

    A :class:`UsageError` names the setting by ``where`` (what comes before it, such as the file)
    and its dotted name, which begins with ``section``.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}{section} must be a section with settings of its own")
    hints = typing.get_type_hints(kind)
    known = [item.name for item in fields(kind)]
    defaults = {item.name: item.default for item in fields(kind)}
    values = {}
    for key, value in table.items():
        if key not in known:
            inside = f"{where}{section}: " if section else where
            raise UsageError(f"{inside}unknown setting {key!r}; it may hold {', '.join(known)}")
        default = defaults[key]
        if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
            value = {**to_table(default), **value}  # what it leaves out is as the section has it
        values[key] = _convert(hints[key], value, where, f"{section}.{key}" if section else key)
    missing = [f.name for f in fields(kind) if f.name not in values and _required(f)]
    if missing:
        raise UsageError(f"{where}{section}: {', '.join(missing)} is missing")
    try:
        return kind(**values)
    except UsageError as error:
        # Training stands in several sections, so it cannot name its own.
        own = f"{section}." if kind is Training and section else ""
        raise UsageError(f"{where}{own}{error}") from None


def _required(item: "dataclasses.Field[Any]") -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str, name: str) -> Any:
    """``value`` from TOML or ``--set`` as the type that the dataclass declares."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(item for item in typing.get_args(hint) if item is not type(None))
    if hint is PerLayer or typing.get_origin(hint) is typing.Literal:
        return value  # the dataclass itself checks these
    if dataclasses.is_dataclass(hint):
        return from_table(typing.cast(type, hint), value, where, name)
    if typing.get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise UsageError(f"{where}{name} is {value!r}: it must be a list")
        item_hint = typing.get_args(hint)[0]
        return tuple(_convert(item_hint, item, where, name) for item in items)
    if hint is bool and isinstance(value, str) and value in ("true", "false"):
        return value == "true"
    if hint is int:
        return integer(f"{where}{name}", value)
    if hint is float:
        return number(f"{where}{name}", value)
    if not isinstance(value, hint):
        raise UsageError(f"{where}{name} is {value!r}: it must be {hint.__name__}")
    return value
