"""Checkpoint files: any safe form -> plain tensors by name (a module, if trusted), and back."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from compressor.errors import LoadError
from compressor.files import write_atomically

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")

State = dict[str, Tensor]


def read(path: Path, *, trust_pickle: bool = False) -> State | nn.Module:
    """The tensors of a checkpoint, wrappers and prefixes removed; a module only if trusted.

    Raises :class:`LoadError` for a file that is missing, empty, damaged, of another kind, or
    that would run code on loading.
    """
    if not path.exists():
        raise LoadError(f"{path} does not exist: give a checkpoint (.pt, .pth, .th, .safetensors)")
    if path.is_dir():
        raise LoadError(f"{path} is a folder: give the checkpoint file in it")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    if not head:
        raise LoadError(f"{path} is empty (0 bytes): save the checkpoint again")
    if head.startswith(b"\x89DCZ"):
        raise LoadError(f"{path} is compressed already; unpack it with: compress decompress {path}")
    if path.suffix == ".onnx":
        raise LoadError(f"{path} is an ONNX file: give the PyTorch checkpoint it was exported from")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path, trust_pickle)
    return content if isinstance(content, nn.Module) else _state(path, content)


def write(state: State, path: Path) -> None:
    """Save tensors as ``.safetensors`` or, by any other name, as a state_dict of ``torch.save``."""
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(plain)
    else:
        buffer = io.BytesIO()
        torch.save(plain, buffer)
        content = buffer.getvalue()
    write_atomically(path, content)


def _safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise LoadError(f"{path} is not a whole safetensors file: {error}") from None


def _torch(path: Path, trust_pickle: bool) -> Any:
    _refuse_other_archives(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError:
        raise LoadError(_why_refused(path)) from None
    except (ImportError, AttributeError) as error:
        raise LoadError(
            f"{path} holds a pickled object whose code is not here ({error}): run in the folder "
            "that has it, or save model.state_dict() instead"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LoadError(
            f"{path} is damaged or cut short ({reason}): save or copy it again"
        ) from None


def _refuse_other_archives(path: Path) -> None:
    """TorchScript and torch.export files are zip archives too: say so before torch.load fails."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        kind = "a TorchScript archive"
    elif any(name.startswith("models/") or name == "archive_format" for name in names):
        kind = "a torch.export archive"
    else:
        return
    raise LoadError(f"{path} is {kind}: save model.state_dict() with torch.save instead")


def _why_refused(path: Path) -> str:
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, OSError, pickle.UnpicklingError):
        found = []
    if not found:
        return f"{path} is not a checkpoint, or is damaged: save model.state_dict() with torch.save"
    return (
        f"{path} holds a pickled {found[0]}, and loading a pickle can run any code: save "
        "model.state_dict() instead, or pass --trust-pickle if you made this file"
    )


def _state(path: Path, content: Any) -> State:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping | nn.Module):
            content = content[key]
            break
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise LoadError(
            f"{path} holds a {type(content).__name__}, not a state_dict: "
            "save model.state_dict() with torch.save"
        )
    state = {_bare(str(name)): value for name, value in content.items()}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise LoadError(
                f"{path} has no state_dict: entry {name!r} is a {type(value).__name__}; weights "
                f"are looked for at the top and under {', '.join(WRAPPERS)}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = "NaN" if torch.isnan(value).any() else "infinite values"
            raise LoadError(f"{path}: {name} contains {bad}; the training that made it diverged")
    if not state:
        raise LoadError(f"{path} holds no tensor at all")
    return state


def _bare(name: str) -> str:
    stripped = name
    for prefix in PREFIXES:
        stripped = stripped.removeprefix(prefix)
    return stripped if stripped == name else _bare(stripped)
