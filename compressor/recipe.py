"""Recipes: stages and their settings as frozen dataclasses, and the only place with defaults.

A recipe is written three ways that mean the same: as Python objects, as TOML, and as options of
the command line. This module turns each into the others; it imports no torch, so ``compress
--help`` and shell completion answer at once.
"""

import dataclasses
import hashlib
import math
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

Init = typing.Literal["linear", "density", "random", "optimal"]
EncodeProfile = typing.Literal["auto", "best", "fast", "huffman", "flat"]
Width = typing.Literal["fp16", "fp32"]
Round = typing.Literal["auto", "ort-avx512", "wasm", 1, 4, 8, 16, 32]
Scope = typing.Literal["uniform", "global"]
Criterion = typing.Literal["l2", "l1", "gamma", "next", "taylor", "obs", "random"]
# A setting per layer, in any of the ways in which one can be written (per_layer.py).
Rules = PerLayer | float | str | Mapping[str, float]

INITS = ("linear", "density", "random", "optimal")
OPTIMIZERS = ("sgd", "adam")
ENCODE_PROFILES = ("auto", "best", "fast", "huffman", "flat")
WIDTHS = ("fp16", "fp32")
ROUNDS = ("auto", "ort-avx512", "wasm", 1, 4, 8, 16, 32)
CRITERIA = ("l2", "l1", "gamma", "next", "taylor", "obs", "random")
AUGMENTS = ("auto", "none", "flip-crop", "affine")

RATE = 0.02
"""The rate of ``--rate-aware`` alone: the most that cost the LeNets no validation image."""

DISTILL = 0.9
"""The weight of ``--distill`` alone: 2 to 3 points on a ResNet-20 after a short retraining."""

NOISE = 0.045
"""The noise of ``--quantize auto`` alone: costs the ResNets of CIFAR-10 a tenth of a point."""

# The settings that bring a section in; the others have defaults that nobody asked for.
CHIEF = {
    "channels": ("ratio", "target_macs", "target_latency"),
    "prune": ("sensitivity",),
    "share": ("bits",),
    "calibrate": ("noise",),
    "data": ("spec",),
}


def _number(
    name: str, value: object, low: float = -math.inf, high: float = math.inf, kind: str = "number"
) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high or (kind == "whole number" and not number.is_integer()):
        raise UsageError(f"{name} is {value!r}: it must be a {kind}{_between(low, high)}")
    return number


def _integer(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> int:
    return int(_number(name, value, low, high, "whole number"))


def _between(low: float, high: float) -> str:
    """Half a sentence, with whole bounds in full."""
    ends = [f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (low, high)]
    if high < math.inf:
        return f" between {ends[0]} and {ends[1]}"
    return f" of at least {ends[0]}" if low > -math.inf else ""


def _choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        known = ", ".join(map(str, allowed))
        raise UsageError(f"{name} is {value!r}: it must be one of {known}")


def _settle(settings: object, **checked: object) -> None:
    """Checked values in place of those given: ``lr=1`` and ``lr=1.0`` are one recipe."""
    for name, value in checked.items():
        object.__setattr__(settings, name, value)


def parse_sensitivity(value: object) -> float:
    """A prune sensitivity: a finite number of standard deviations, at least 0."""
    return _number("prune sensitivity", value, 0.0, 1e6)


def parse_ratio(value: object) -> float:
    """A fraction of channels to remove: between 0 and 1, both excluded."""
    number = _number("channels.ratio", value, 0.0, 1.0)
    if number in (0.0, 1.0):
        raise UsageError(
            f"channels.ratio is {value!r}: it is the fraction of channels to remove, over 0 and "
            "under 1"
        )
    return number


def _part(name: str, value: object) -> float:
    """A part of the dense network's cost: between 0 and 1, both excluded."""
    number = _number(name, value, 0.0, 1.0)
    if number in (0.0, 1.0):
        raise UsageError(f"{name} is {number:g}: it is the part to keep, over 0 and under 1")
    return number


def _round(value: object) -> int | str:
    """A step of widths, or the name of what tells it."""
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    _choice("channels.round", number, ROUNDS)
    return typing.cast(int | str, number)


def parse_rate(value: object) -> float:
    """The rate of one layer: 0 or more."""
    return _number("rate", value, 0.0)


def parse_bits(value: object) -> int:
    """A codebook width, ``5bit``, ``5bits``, ``5`` or 5: 1 to 16 bits, so 2 to 65,536 centroids."""
    text = value.strip().removesuffix("s").removesuffix("bit") if isinstance(value, str) else value
    try:
        return _integer("bits", text, 1, 16)
    except UsageError:
        raise UsageError(
            f"share.bits is {value!r}: it must be a width from 1bit to 16bit, such as 5bit"
        ) from None


@dataclass(frozen=True)
class Training:
    """How a network is trained or retrained: cosine learning rate, last epoch kept.

    ``lr`` falls from its value to 0 along a half cosine over all steps, after a linear warm-up
    over the first ``warmup`` fraction of them. ``weight_decay`` acts on weights of two and more
    dimensions only, not on biases, norms or codebooks. ``augment`` "auto" is the data set's own.
    ``distill`` is the share of the loss that asks for the dense network's answers at
    ``temperature``, not for the labels. ``slimming`` is the price of batch norms' scales, which
    drives those to 0 whose channels are needed least.
    """

    epochs: int = 10
    lr: float = 0.01
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 128
    warmup: float = 0.05
    augment: str = "auto"
    distill: float = 0.0
    temperature: float = 4.0
    slimming: float = 0.0

    def __post_init__(self) -> None:
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        _choice("augment", self.augment, AUGMENTS)
        _settle(
            self,
            epochs=_integer("epochs", self.epochs, 0, 100_000),
            lr=_number("lr", self.lr, 1e-12, 1e3),
            momentum=_number("momentum", self.momentum, 0.0, 0.9999),
            weight_decay=_number("weight_decay", self.weight_decay, 0.0, 10.0),
            batch_size=_integer("batch_size", self.batch_size, 1, 1_000_000),
            warmup=_number("warmup", self.warmup, 0.0, 0.9),
            distill=_number("distill", self.distill, 0.0, 1.0),
            temperature=_number("temperature", self.temperature, 0.01, 1000.0),
            slimming=_number("slimming", self.slimming, 0.0, 1.0),
        )


# What `compress train` begins from: more epochs and a higher rate than retraining needs.
FROM_NOTHING = Training(epochs=20, lr=0.05, weight_decay=5e-4)


@dataclass(frozen=True)
class Channels:
    """Before the paper's stages: whole channels removed, so that a dense runtime is faster.

    ``ratio`` is the fraction of the channels to remove: of every layer, or where ``scope`` is
    "global" of all together, wherever they are worth least by ``criterion``. ``target_macs`` has
    the ratio found instead: the least that leaves at most so large a part of the multiply-adds;
    ``target_latency`` that at which ONNX Runtime takes so large a part of the time here.
    ``round`` makes widths multiples of it: "auto" is what this machine's convolutions like best
    (measured, and written into the resolved recipe), the names are profiles of other machines.
    ``keep`` is the fewest channels that a layer keeps, and ``freeze_residual`` leaves what sums of
    activations join. On ``reconstruct`` training images the layers that read fewer channels are
    fitted to what they computed before. ``rounds`` above 1 remove in as many equal factors, each
    followed by re-estimation of batch-norm statistics on ``recalibrate`` training images and by
    ``retrain``.
    """

    ratio: Rules | None = None
    scope: Scope = "uniform"
    target_macs: float | None = None
    target_latency: float | None = None
    criterion: Criterion = "l2"
    round: Round = "auto"
    keep: int = 3
    freeze_residual: bool = False
    rounds: int = 1
    reconstruct: int = 1000
    recalibrate: int = 2000
    retrain: Training = Training()

    def __post_init__(self) -> None:
        if sum(each is not None for each in self._goals) != 1:
            raise UsageError(
                "channels: give one of ratio (--channels 0.3), target_macs (--target-macs 0.5) and "
                "target_latency (--target-latency 0.5)"
            )
        _choice("channels.criterion", self.criterion, CRITERIA)
        _choice("channels.scope", self.scope, ("uniform", "global"))
        if self.ratio is not None:
            _settle(self, ratio=self.rules)
            if self.scope == "global" and list(self.rules.table()) != ["*"]:
                raise UsageError("channels.scope global takes one ratio for all layers")
        for name in ("target_macs", "target_latency"):
            if getattr(self, name) is not None:
                _settle(self, **{name: _part(f"channels.{name}", getattr(self, name))})
        _settle(
            self,
            round=_round(self.round),
            keep=_integer("channels.keep", self.keep, 1, 1_000_000),
            rounds=_integer("channels.rounds", self.rounds, 1, 100),
            reconstruct=_integer("channels.reconstruct", self.reconstruct, 0, 10_000_000),
            recalibrate=_integer("channels.recalibrate", self.recalibrate, 0, 10_000_000),
        )

    @property
    def _goals(self) -> tuple[object, ...]:
        return (self.ratio, self.target_macs, self.target_latency)

    @property
    def rules(self) -> PerLayer:
        """The ratio of each layer."""
        return PerLayer.parse(self.ratio if self.ratio is not None else {}, parse_ratio)


@dataclass(frozen=True)
class Prune:
    """Stage 1 (Deep Compression, section 2): prune by threshold, then retrain what is left.

    ``sensitivity`` times the standard deviation of a layer's weights is its threshold. With
    ``rounds`` above 1 the sensitivity rises to its value in equal steps, each followed by
    ``retrain``, as the paper prunes iteratively (Han et al. 2015, section 3.3).
    """

    sensitivity: Rules = 0.25
    rounds: int = 1
    retrain: Training = Training()

    def __post_init__(self) -> None:
        _settle(self, sensitivity=self.rules, rounds=_integer("prune.rounds", self.rounds, 1, 1000))

    @property
    def rules(self) -> PerLayer:
        """The sensitivity of each layer."""
        return PerLayer.parse(self.sensitivity, parse_sensitivity)


@dataclass(frozen=True)
class Share:
    """Stage 2 (section 3): k-means on each layer's surviving weights, then centroid fine-tuning.

    ``bits`` b gives 2^b centroids. ``init`` is one of the paper's three starts (section 3.2), or
    "optimal", which needs none: the least squared error that there is. ``rate`` over 0 makes it
    entropy-constrained quantization in place of k-means: what a bit of the artifact is worth, as a
    squared error in units of the layer's mean square weight. Weights that are not worth their bits
    become zero.
    """

    bits: Rules = 5
    init: Init = "linear"
    finetune: Training = Training(epochs=5, lr=1e-3, optimizer="adam", weight_decay=0.0)
    rate: Rules = 0.0

    def __post_init__(self) -> None:
        _settle(self, bits=self.rules, rate=self.rates)
        _choice("share.init", self.init, INITS)

    @property
    def rules(self) -> PerLayer:
        """The codebook width of each layer, in bits."""
        return PerLayer.parse(self.bits, parse_bits)

    @property
    def rates(self) -> PerLayer:
        """The rate of each layer."""
        return PerLayer.parse(self.rate, parse_rate)


@dataclass(frozen=True)
class Calibrate:
    """Stage 2 in another way: grids as fine as the outputs need, errors compensated; no training.

    ``noise`` is how much all layers together may change the outputs: the root of the mean squared
    change over the outputs' mean square. ``max_drop`` has it found instead: the coarsest at which
    at most so many percent of the validation images are lost, which were right before. ``images``
    training images are looked at, their labels are not.
    """

    noise: float = NOISE
    max_drop: float | None = None
    images: int = 1000

    def __post_init__(self) -> None:
        _settle(
            self,
            noise=_number("calibrate.noise", self.noise, 1e-4, 10.0),
            images=_integer("calibrate.images", self.images, 1, 1_000_000),
        )
        if self.max_drop is not None:
            _settle(self, max_drop=_number("calibrate.max_drop", self.max_drop, 0.0, 100.0))


@dataclass(frozen=True)
class Encode:
    """Stage 3 (section 4): relative indices, entropy codes, the ``.dcz`` artifact.

    ``width`` is what vectors are rounded to (biases, norm parameters and statistics, codebooks);
    weights that no stage shared stay fp32. ``profile`` is what the storage of each tensor is chosen
    from: "best" is every mode, context mixing included, for the smallest file; "fast" leaves that
    out and decodes at memory speed; "auto" is "best" for networks below five million parameters,
    else "fast"; "huffman" is the paper's own storage; "flat" writes fixed-width codes, to see what
    entropy coding brings. ``graph`` false leaves the ONNX graph out.
    """

    width: Width = "fp16"
    profile: EncodeProfile = "auto"
    graph: bool = True

    def __post_init__(self) -> None:
        _choice("encode.width", self.width, WIDTHS)
        _choice("encode.profile", self.profile, ENCODE_PROFILES)


@dataclass(frozen=True)
class Export:
    """Stage 4: the dense ONNX file and its check against PyTorch; other files made of it.

    ``tolerance`` is the largest difference allowed between ONNX Runtime and PyTorch, relative to
    the largest output; ``samples`` real inputs are compared (random ones where there is no data).
    ``int8`` also writes an INT8 QDQ file, its ranges from ``calibration`` training images;
    ``ort`` one in ONNX Runtime's own format, for its mobile and web builds.
    """

    opset: int = 18
    tolerance: float = 1e-5
    samples: int = 64
    int8: bool = False
    calibration: int = 256
    ort: bool = False

    def __post_init__(self) -> None:
        _settle(
            self,
            opset=_integer("export.opset", self.opset, 18, 23),
            tolerance=_number("export.tolerance", self.tolerance, 0.0, 1.0),
            samples=_integer("export.samples", self.samples, 1, 4096),
            calibration=_integer("export.calibration", self.calibration, 1, 1 << 20),
        )


@dataclass(frozen=True)
class DataSpec:
    """Which data set, and how its images are split and normalised.

    ``spec`` is a name (mnist, ...), a folder, an ``.npz`` file or ``file.py:make``;
    ``validation`` the fraction of the training images kept for choosing settings;
    ``mean`` and ``std`` per channel override the data set's own.
    """

    spec: str
    validation: float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _settle(self, validation=_number("data.validation", self.validation, 0.0, 0.9))
        if self.mean is None and self.std is None:
            return
        if self.mean is None or self.std is None:
            raise UsageError("mean and std go together: give both or neither")
        _settle(
            self,
            mean=tuple(_number("data.mean", item, -math.inf, math.inf) for item in self.mean),
            std=tuple(_number("data.std", item, 0.0, math.inf) for item in self.std),
        )


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
    input_shape: tuple[int, ...] | None = None
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.share is not None and self.calibrate is not None:
            raise UsageError("share and calibrate are two ways to do one thing: leave one out")
        _settle(self, seed=_integer("seed", self.seed, 0, 2**32 - 1))
        if self.threads is not None:
            _settle(self, threads=_integer("threads", self.threads, 1, 1024))
        if self.input_shape is not None:
            if not self.input_shape:
                raise UsageError("input_shape is empty: give the sizes of one input, C, H, W")
            sizes = tuple(_integer("input_shape", size, 1, 1 << 20) for size in self.input_shape)
            _settle(self, input_shape=sizes)

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
        goals = [f"channels.{goal}" for goal in CHIEF["channels"]]
        if any(goal in settings for goal in goals):  # one takes the place of another
            for goal in CHIEF["channels"]:
                table.get("channels", {}).pop(goal, None)
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
    values = {}
    for key, value in table.items():
        if key not in known:
            inside = f"{where}{section}: " if section else where
            raise UsageError(f"{inside}unknown setting {key!r}; it may hold {', '.join(known)}")
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
        return _integer(f"{where}{name}", value)
    if hint is float:
        return _number(f"{where}{name}", value)
    if not isinstance(value, hint):
        raise UsageError(f"{where}{name} is {value!r}: it must be {hint.__name__}")
    return value
