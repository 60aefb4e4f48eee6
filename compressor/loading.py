"""A checkpoint in any safe form -> :class:`Network`: the tensors meet their architecture here."""

import contextlib
import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor import checkpoint, files, user_code
from compressor.errors import LoadError, StageError
from compressor.models import registry
from compressor.network import Network

Shape = tuple[int, ...]
Build = Callable[[int | None], nn.Module]


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    input_shape: Shape | None = None,
    trust_pickle: bool = False,
) -> Network:
    """The network in a checkpoint, in evaluation mode on the CPU, in float32.

    ``arch`` is a registry name, ``torchvision:NAME`` or ``FILE.py:FUNCTION``; without it, the
    network is recognised from the names and shapes of its weights, or is the pickled module
    itself. A ``.safetensors`` file may say in its metadata which channels of which architecture it
    holds (``network`` and ``channels``, as ``compress decompress`` writes them). ``input_shape`` is
    one input without the batch, (C, H, W); without it, the architecture's own. Raises
    :class:`LoadError`, also where the network does not run on such an input.
    """
    path = Path(path)
    content = checkpoint.read(path, trust_pickle=trust_pickle)
    told = checkpoint.metadata(path)
    channels, arch = told.get("channels"), _told(path, told) if arch is None else arch
    if isinstance(content, nn.Module) and arch in (None, type(content).__name__):
        module, known, arch = content, None, type(content).__name__
    else:
        state = content.state_dict() if isinstance(content, nn.Module) else content
        arch, build, known = _architecture(arch, state)
        module = fill(build, state, path, arch, (channels, input_shape or known))
    shape = input_shape or known
    if shape is None:
        raise LoadError(f"{arch} does not tell its input size; add {_shape_flag(module)}")
    module = module.float().eval()
    example = _accepted(module, shape, arch)
    return Network(module, example, path.stem, arch, files.digest(path), channels=channels)


def _told(path: Path, metadata: Mapping[str, str]) -> str | None:
    """The architecture that a file names, where it is a known one: a file's word runs no code."""
    name = metadata.get("network", "")
    if is_known(name):
        return name
    if "channels" in metadata:
        raise LoadError(
            f"{path} holds some of the channels of a network that is not known here "
            f"({name[:100]!r}): tell how to build the whole one: --arch FILE.py:FUNCTION, or arch="
        )
    return None


def is_known(name: str) -> bool:
    """Whether a file may name this architecture: one of ours or torchvision's, never one's own."""
    return name.startswith("torchvision:") or name in registry.names()


def _accepted(module: nn.Module, shape: Shape, arch: str) -> Tensor:
    """One input of zeros, once the network has turned it into one tensor."""
    try:
        example = torch.zeros(1, *shape)
        with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
            output = module(example)
    except Exception as error:  # it may be the user's own code, which may raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise LoadError(
            f"{arch} does not run on an input of shape {(1, *shape)}, batch first ({reason}): tell "
            "the right one by --input-shape 1,C,H,W, or in FILE.py by FUNCTION.input_shape"
        ) from error
    if not isinstance(output, Tensor):
        raise LoadError(
            f"{arch} gives a {type(output).__name__}, not one tensor: wrap it in a module that "
            "returns the logits alone"
        )
    return example


def build(arch: str, *, classes: int | None = None) -> tuple[nn.Module, Shape | None]:
    """A freshly initialised network of ``arch``, as ``compress train`` needs it, and its input."""
    name, builder, shape = _named(arch)
    try:
        module = builder(classes)
    except TypeError:
        raise LoadError(f"{name} does not take a number of classes ({classes})") from None
    if shape is not None:
        _accepted(module.eval(), shape, name)
    return module, shape


def _architecture(arch: str | None, state: checkpoint.State) -> tuple[str, Build, Shape | None]:
    if arch is not None:
        return _named(arch)
    entry, _ = registry.recognise({name: tuple(value.shape) for name, value in state.items()})
    return entry.name, entry.build, entry.input_shape


def _named(arch: str) -> tuple[str, Build, Shape | None]:
    source, _, name = arch.rpartition(":")
    if source == "torchvision":
        return arch, _torchvision(name), (3, 299, 299) if name == "inception_v3" else (3, 224, 224)
    if source:
        function = user_code.function(Path(source), name, "--arch", LoadError)
        return arch, lambda classes: _call(function, arch), _declared_shape(function)
    if arch.endswith(".py"):
        raise LoadError(f"--arch {arch} lacks the function: give {arch}:FUNCTION")
    entry = registry.get(arch)
    return entry.name, entry.build, entry.input_shape


def _declared_shape(function: Callable[..., Any]) -> Shape | None:
    """``FUNCTION.input_shape`` where it is one, (C, H, W) without the batch."""
    shape = getattr(function, "input_shape", None)
    if not isinstance(shape, tuple | list) or not shape:
        return None
    return tuple(shape) if all(isinstance(size, int) and size > 0 for size in shape) else None


def _torchvision(name: str) -> Build:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known) or ["resnet18", "mobilenet_v2"]
        raise LoadError(
            f"--arch torchvision:{name}: torchvision has no such classification model; "
            f"it has {', '.join(close)} and others"
        )

    def builder(classes: int | None) -> nn.Module:
        extra: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if name in ("googlenet", "inception_v3"):
            extra |= {"aux_logits": False, "init_weights": False}
        module: nn.Module = models.get_model(name, weights=None, **extra)
        return module

    return builder


def _call(function: Callable[..., Any], arch: str) -> nn.Module:
    with user_code.running(Path(arch.rpartition(":")[0]), f"--arch {arch}", LoadError):
        module = function()
    if not isinstance(module, nn.Module):
        raise LoadError(f"--arch {arch} returned a {type(module).__name__}, not a torch.nn.Module")
    return module


def module_for(
    arch: str,
    state: checkpoint.State,
    path: Path,
    kept: str | None = None,
    input_shape: Shape | None = None,
) -> nn.Module:
    """The network that ``arch`` names, with the tensors of ``state`` in it.

    ``kept`` says which channels are left, where some were removed (``channels.Kept``).
    """
    name, builder, shape = _named(arch)
    return fill(builder, state, path, name, (kept, input_shape or shape))


def fill(
    builder: Build,
    state: checkpoint.State,
    path: Path,
    arch: str,
    smaller: tuple[str | None, Shape | None] = (None, None),
) -> nn.Module:
    """Build the network with the checkpoint's number of classes and load its tensors strictly."""
    module = builder(None)
    classes = _classes(module, state)
    if classes is not None:
        module = builder(classes)
    channels, shape = smaller
    if channels is not None:
        module = _smaller(module, channels, shape, path)
    expected = registry.without_counters(
        {n: tuple(v.shape) for n, v in module.state_dict().items()}
    )
    found = registry.without_counters({n: tuple(v.shape) for n, v in state.items()})
    if expected != found:
        difference = registry.first_difference(expected, found)
        raise LoadError(f"{path} does not fit {arch}: {difference}; choose another --arch")
    for name, value in module.state_dict().items():
        if name in state and value.is_floating_point() and not state[name].is_floating_point():
            raise LoadError(
                f"{path}: {name} is {state[name].dtype}, not floating point: give the checkpoint "
                "from before it was quantized"
            )
    kept = {name: value for name, value in state.items() if name in module.state_dict()}
    module.load_state_dict(kept, strict=False)  # only counters of batches may be missing
    return module


def _smaller(module: nn.Module, channels: str, shape: Shape | None, path: Path) -> nn.Module:
    """The network without the channels that are gone from the file."""
    from compressor.channels import Kept

    if shape is None:
        raise LoadError(
            f"{path}: the network's input size is not known: add {_shape_flag(module)}, or "
            "input_shape="
        )
    example = torch.zeros(1, *shape)
    try:
        return Kept.from_json(channels).apply(module.float().eval(), example)
    except StageError as error:
        raise LoadError(f"{path}: {error}") from None
    except Exception as error:  # tracing runs the user's own code, which may raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise LoadError(f"{path}: the network cannot be cut as the file says: {reason}") from error


def _classes(module: nn.Module, state: checkpoint.State) -> int | None:
    """The checkpoint's number of classes where it differs from the network's, else None."""
    heads = [n for n, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not heads or f"{heads[-1]}.weight" not in state:
        return None
    expected, found = module.get_submodule(heads[-1]).weight, state[f"{heads[-1]}.weight"]
    if not isinstance(expected, torch.Tensor) or found.ndim != 2:
        return None
    return int(found.shape[0]) if found.shape[0] != expected.shape[0] else None


def _shape_flag(module: nn.Module) -> str:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            return f"--input-shape 1,{layer.in_channels},HEIGHT,WIDTH"
        if isinstance(layer, nn.Linear):
            return f"--input-shape 1,{layer.in_features}, or 1,CHANNELS,HEIGHT,WIDTH of its images"
    return "--input-shape 1,CHANNELS,HEIGHT,WIDTH"
