"""A checkpoint in any safe form -> :class:`Network`: the tensors meet their architecture here."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor import architectures, checkpoint, files, user_code
from compressor.architectures import Architecture, Build
from compressor.errors import LoadError, StageError
from compressor.examples import Example, inputs_of, outputs_of
from compressor.models import registry
from compressor.network import Network

Shape = tuple[int, ...]


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    input_shape: Shape | None = None,
    trust_pickle: bool = False,
    example: Example | None = None,
) -> Network:
    """The network in a checkpoint, in evaluation mode on the CPU, in float32.

    ``arch`` is a name as in ``architectures``; without it, the network is recognised from the names
    and shapes of its weights, or is the pickled module itself. A ``.safetensors`` file may say in
    its metadata which channels of which architecture it holds (``network`` and ``channels``, as
    ``compress decompress`` writes them). ``input_shape`` is
    one input without the batch, (C, H, W); without it, the architecture's own. ``example`` goes
    before it: an input, batch first, or a tuple of several. Raises
    :class:`LoadError`, also where the network does not run on such an input.
    """
    path = Path(path)
    kind = checkpoint.graph_kind(path)
    if kind is not None and arch in (None, kind):
        return _imported(path, kind, input_shape, trust_pickle, example)
    content = _content(path, kind, trust_pickle)
    told = checkpoint.metadata(path)
    channels, arch = told.get("channels"), _told(path, told) if arch is None else arch
    if isinstance(content, nn.Module) and arch in (None, type(content).__name__):
        module, known, arch = content, None, type(content).__name__
    else:
        state = content.state_dict() if isinstance(content, nn.Module) else content
        found = _architecture(arch, state)
        arch, known = found.name, found.input_shape
        module = fill(found.build, state, path, arch, (channels, input_shape or known))
    shape = input_shape or known
    if example is None and shape is None:
        raise LoadError(f"{arch} does not tell its input size; add {_shape_flag(module)}")
    module = module.float().eval()
    example = _accepted(module, _one(example, shape), arch)
    return Network(module, example, path.stem, arch, files.digest(path), channels=channels)


def _imported(
    path: Path, kind: str, shape: Shape | None, trust_pickle: bool, example: Example | None
) -> Network:
    """A network that brings its own graph."""
    from compressor import graphs

    found = graphs.read(path, kind, shape, trust_pickle=trust_pickle, example=example)
    source = files.digest(path, *found.beside)
    return Network(found.module, found.example, path.stem, kind, source)


def _content(path: Path, kind: str | None, trust_pickle: bool) -> checkpoint.State | nn.Module:
    """Tensors, or a trusted module; of a file with a graph whose class is named, its tensors."""
    if kind is None:
        return checkpoint.read(path, trust_pickle=trust_pickle)
    from compressor import graphs

    return graphs.state(path, kind, trust_pickle=trust_pickle)


def _told(path: Path, metadata: Mapping[str, str]) -> str | None:
    """The architecture that a file names, where it is a known one: a file's word runs no code."""
    name = metadata.get("network", "")
    if architectures.runs_no_code(name):
        return name
    if "channels" in metadata:
        raise LoadError(
            f"{path} holds some of the channels of a network that is not known here "
            f"({name[:100]!r}): tell how to build the whole one: --arch FILE.py:FUNCTION, or arch="
        )
    return None


def _one(example: Example | None, shape: Shape | None) -> Example:
    """One input: the first of the examples that are given, or zeros."""
    if example is None:
        return torch.zeros(1, *(shape or ()))
    first = tuple(each[:1] for each in inputs_of(example))
    return first[0] if isinstance(example, Tensor) else first


def _accepted(module: nn.Module, example: Example, arch: str) -> Example:
    """The input, once the network has turned it into tensors."""
    try:
        with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
            output = module(*inputs_of(example))
    except Exception as error:  # it may be the user's own code, which may raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        refusal = LoadError(
            f"{arch} does not run on an input of shape {_shapes(example)}, batch first ({reason}): "
            "tell the right one by --input-shape 1,C,H,W, or in FILE.py by FUNCTION.input_shape"
        )
        if note := user_code.own_traceback(error):
            refusal.add_note(note)
        raise refusal from error
    if not outputs_of(output):
        raise LoadError(
            f"{arch} gives a {type(output).__name__} without any tensor: wrap it in a module that "
            "returns its tensors"
        )
    return example


def _shapes(example: Example) -> str:
    return " and ".join(str(tuple(each.shape)) for each in inputs_of(example))


def build(arch: str, *, classes: int | None = None) -> tuple[nn.Module, Shape | None]:
    """A freshly initialised network of ``arch``, as ``compress train`` needs it, and its input."""
    found = architectures.named(arch)
    try:
        module = found.build(classes)
    except TypeError:
        raise LoadError(f"{found.name} does not take a number of classes ({classes})") from None
    if found.input_shape is not None:
        _accepted(module.eval(), torch.zeros(1, *found.input_shape), found.name)
    return module, found.input_shape


def _architecture(arch: str | None, state: checkpoint.State) -> Architecture:
    if arch is not None:
        return architectures.named(arch)
    inner = _without_owner(state)
    try:
        entry, _ = registry.recognise(_shapes_of(state))
    except LoadError:
        if inner is None:
            raise
        try:
            entry, _ = registry.recognise(_shapes_of(inner))
        except LoadError:
            inner = None
        if inner is None:
            raise
    return Architecture(entry.name, entry.build, entry.input_shape)


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
    found = architectures.named(arch)
    return fill(found.build, state, path, found.name, (kept, input_shape or found.input_shape))


def fill(
    builder: Build,
    state: checkpoint.State,
    path: Path,
    arch: str,
    smaller: tuple[str | None, Shape | None] = (None, None),
) -> nn.Module:
    """Build the network with the checkpoint's number of classes and load its tensors strictly."""
    module = builder(None)
    state = _owned(state, module)
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


def _without_owner(state: checkpoint.State) -> checkpoint.State | None:
    """Names without the word that all begin with, if there is one.

    Lightning and many training scripts keep a network as an attribute (``model``, ``net``), and
    save its weights under that.
    """
    owners = {name.partition(".")[0] for name in state}
    inner = {name.partition(".")[2]: value for name, value in state.items()}
    return inner if len(owners) == 1 and "" not in inner else None


def _owned(state: checkpoint.State, module: nn.Module) -> checkpoint.State:
    """The tensors by the names that the network has for them, if another's name is in front."""
    expected, inner = set(registry.without_counters(_shapes_of(module.state_dict()))), state
    while inner is not None and set(registry.without_counters(_shapes_of(inner))) != expected:
        inner = _without_owner(inner)  # type: ignore[assignment]
    return state if inner is None else inner


def _shapes_of(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in state.items()}


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
