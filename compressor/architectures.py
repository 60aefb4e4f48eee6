"""``--arch``: how a network is named, and how one of that name is built.

::

    lenet5                            a name of this tool's (models/registry.py)
    torchvision:NAME    timm:NAME     a model of theirs, without its weights
    FILE.py:NAME                      a function or class of a Python file
    PACKAGE.MODULE:NAME               one of a module that can be imported from here
    SOURCE:NAME(width=0.5, deep=true) any of these but the first with arguments, as in TOML

The arguments are part of the name, so whatever keeps a name (a recipe, an artifact) keeps them.
"""

import difflib
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor import user_code
from compressor.errors import LoadError, UsageError
from compressor.models import registry

Shape = tuple[int, ...]
Build = Callable[[int | None], nn.Module]
_LIBRARIES = ("torchvision", "timm")
_CALL = re.compile(r"((?:.*?:)?[^\W\d][\w.-]*)\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Architecture:
    """``build(classes)`` makes a network, with its own number of classes where that is None;
    ``input_shape`` is one input without the batch, where it is known."""

    name: str
    build: Build
    input_shape: Shape | None


def named(arch: str) -> Architecture:
    """The architecture called ``arch``. Raises :class:`LoadError` where there is none."""
    plain, arguments = _parsed(arch)
    source, _, name = plain.rpartition(":")
    if source in _LIBRARIES:
        library = _torchvision if source == "torchvision" else _timm
        return library(arch, name, arguments)
    if source:
        function = user_code.function(source, name, "--arch", LoadError)
        shape = _declared_shape(function) or _image(arguments)
        return Architecture(arch, _users(source, function, arguments, arch), shape)
    if plain.endswith(".py"):
        raise LoadError(f"--arch {arch} lacks the function: give {arch}:FUNCTION")
    entry = registry.get(plain)
    if arguments:
        raise LoadError(f"--arch {arch}: {plain} takes no arguments; FILE.py:FUNCTION may")
    return Architecture(entry.name, entry.build, entry.input_shape)


def runs_no_code(arch: str) -> bool:
    """Whether a name may be followed that a file tells: it names no code but ours and libraries'.

    One with arguments is not: some of theirs load further files.
    """
    source, _, name = arch.partition(":")
    return arch in registry.names() or (
        source in _LIBRARIES and re.fullmatch(r"[\w.-]+", name) is not None
    )


def with_arguments(arch: str, arguments: Sequence[str]) -> str:
    """``arch`` with ``NAME=VALUE`` arguments added to those it has.

    Values are TOML's, or text where they are none. Raises :class:`UsageError`.
    """
    plain, known = _parsed(arch)
    for item in arguments:
        name, equals, text = item.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"--arch-arg {item}: give NAME=VALUE, such as width=0.5")
        known[name.strip()] = _value(text.strip())
    return _written(plain, known)


def _parsed(arch: str) -> tuple[str, dict[str, Any]]:
    """(name, arguments) of ``name(argument=value, ...)``."""
    call = _CALL.fullmatch(arch)
    if call is None:
        return arch, {}
    try:
        return call[1], tomllib.loads(f"x = {{{call[2]}}}")["x"]
    except tomllib.TOMLDecodeError as error:
        raise LoadError(
            f"--arch {arch}: the arguments cannot be read ({error}); write "
            f'{call[1]}(width=0.5, name="text", deep=true)'
        ) from None


def _value(text: str) -> Any:
    python = {"True": True, "False": False}
    if text in python:
        return python[text]
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _written(plain: str, arguments: Mapping[str, Any]) -> str:
    if not arguments:
        return plain
    try:  # JSON's numbers, texts, truths and lists are TOML's too
        given = [f"{name}={json.dumps(v, allow_nan=False)}" for name, v in arguments.items()]
    except (TypeError, ValueError):
        raise UsageError(
            f"--arch-arg: {arguments} are not numbers, texts, truths or lists"
        ) from None
    if any(isinstance(value, dict) for value in arguments.values()):
        raise UsageError("--arch-arg: a table cannot be an argument")
    return f"{plain}({', '.join(given)})"


def _declared_shape(function: Callable[..., Any]) -> Shape | None:
    """``FUNCTION.input_shape`` where it is one, (C, H, W) without the batch."""
    shape = getattr(function, "input_shape", None)
    if not isinstance(shape, tuple | list) or not shape:
        return None
    return tuple(shape) if all(isinstance(size, int) and size > 0 for size in shape) else None


def _image(arguments: Mapping[str, Any]) -> Shape | None:
    """The input that an argument asks for, by the names that transformers for images use."""
    size = arguments.get("image_size", arguments.get("img_size"))
    return (3, size, size) if isinstance(size, int) and size > 0 else None


def _users(source: str, function: Any, arguments: Mapping[str, Any], arch: str) -> Build:
    """A user's function; it is told the number of classes where it has an argument for that."""

    def build(classes: int | None) -> nn.Module:
        extra = dict(arguments)
        name = _classes_argument(function)
        if classes is not None and name is not None and name not in extra:
            extra[name] = classes
        with user_code.running(source, f"--arch {arch}", LoadError):
            module = function(**extra)
        if not isinstance(module, nn.Module):
            kind = type(module).__name__
            raise LoadError(f"--arch {arch} returned a {kind}, not a torch.nn.Module")
        return module

    return build


def _classes_argument(function: Any) -> str | None:
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in ("num_classes", "classes", "n_classes") if name in known), None)


def _torchvision(arch: str, name: str, arguments: Mapping[str, Any]) -> Architecture:
    from torchvision import models

    known = models.list_models()
    if name not in known:
        raise LoadError(f"--arch {arch}: torchvision has no such model; {_alike(name, known)}")
    # Without weights of their own, and without those of a part, which would be downloaded.
    fixed: dict[str, Any] = {"weights": None}
    if name not in models.list_models(module=models):
        fixed["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        fixed |= {"aux_logits": False, "init_weights": False}

    def build(classes: int | None) -> nn.Module:
        extra = {} if classes is None else {"num_classes": classes}
        return _made(arch, lambda: models.get_model(name, **{**fixed, **extra, **arguments}))

    size = 299 if name == "inception_v3" else 224
    return Architecture(arch, build, _image(arguments) or (3, size, size))


def _timm(arch: str, name: str, arguments: Mapping[str, Any]) -> Architecture:
    try:
        import timm
    except ImportError:
        raise LoadError(
            f"--arch {arch}: timm is not installed here: pip install timm, or give FILE.py:FUNCTION"
        ) from None
    if not timm.is_model(name):
        raise LoadError(
            f"--arch {arch}: timm has no such model; {_alike(name, timm.list_models())}"
        )
    told = timm.get_pretrained_cfg(name)
    shape = tuple(told.input_size) if told is not None else (3, 224, 224)

    def build(classes: int | None) -> nn.Module:
        extra = {} if classes is None else {"num_classes": classes}
        return _made(arch, lambda: timm.create_model(name, **{**extra, **arguments}))

    return Architecture(arch, build, _image(arguments) or shape)


def _made(arch: str, make: Callable[[], Any]) -> nn.Module:
    """What a library makes of arguments that may be wrong ones."""
    try:
        module: nn.Module = make()
    except Exception as error:  # whatever a constructor thinks of its arguments
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise LoadError(f"--arch {arch} cannot be built: {reason}") from error
    return module


def _alike(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known) or ["resnet18", "mobilenetv3_large_100"]
    return f"it has {', '.join(one for one in close if one in known) or known[0]} and others"
