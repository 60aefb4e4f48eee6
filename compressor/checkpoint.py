"""Checkpoint files: any safe form -> plain tensors by name (a module, if trusted), and back."""

import contextlib
import io
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from compressor.errors import LoadError
from compressor.files import write_atomically

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")

ZIP, PICKLE = b"PK", b"\x80"  # what torch.save has written: today, and before version 1.6

State = dict[str, Tensor]


def read(path: Path, *, trust_pickle: bool = False) -> State | nn.Module:
    """The tensors of a checkpoint, wrappers and prefixes removed; a module only if trusted.

    Raises :class:`LoadError` for a file that is missing, empty, damaged, of another kind, or
    that would run code on loading.
    """
    head = _head(path)
    if head.startswith(b"\x89DCZ"):
        raise LoadError(f"{path} is compressed already; unpack it with: compress decompress {path}")
    if head[8:9] == b"{":  # eight bytes of length, then JSON: whatever the name says
        return _state(path, _safetensors(path))
    if not head.startswith((ZIP, PICKLE)):
        raise LoadError(
            f"{path} is not a checkpoint, or only the beginning of one: give a file that "
            "torch.save, torch.export.save, safetensors or an exporter to ONNX wrote"
        )
    content = _torch(path, trust_pickle)
    if not isinstance(content, nn.Module):
        return _state(path, content)
    for name, value in content.state_dict().items():
        _check(path, name, value)
    return content


def _head(path: Path) -> bytes:
    """The first bytes, which tell what a file is."""
    if not path.exists():
        raise LoadError(
            f"{path} does not exist: give a checkpoint (.pt, .pth, .th, .safetensors, .pt2, .onnx)"
        )
    if path.is_dir():
        raise LoadError(f"{path} is a folder: give the checkpoint file in it")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    if not head:
        raise LoadError(f"{path} is empty (0 bytes): save the checkpoint again")
    return head


def graph_kind(path: Path) -> str | None:
    """One of ``graphs.KINDS`` for a file that brings its graph, whatever its name; else None.

    TorchScript and ``torch.export`` files are zip archives, as those of ``torch.save`` are.
    """
    head = _head(path)
    if head.startswith(ZIP):
        try:
            if not zipfile.is_zipfile(path):
                return None
            with zipfile.ZipFile(path) as archive:
                names = {name.partition("/")[2] for name in archive.namelist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _damaged(path, error) from None
        if "constants.pkl" in names:
            return "torchscript"
        exported = any(name.startswith("models/") or name == "archive_format" for name in names)
        return "pt2" if exported else None
    other = head[8:9] == b"{" or head.startswith((PICKLE, b"\x89DCZ"))
    named = path.suffix == ".onnx" and not other
    return "onnx" if named or _begins_as_onnx(head) else None


def _begins_as_onnx(head: bytes) -> bool:
    """ONNX's message begins with its version, a small number, and then a field it knows."""
    return (
        len(head) > 2
        and head[0] == 0x08
        and 0 < head[1] < 0x20
        and head[2] in b"\x12\x1a\x28\x3a\x42"
    )


def metadata(path: Path) -> dict[str, str]:
    """What a ``.safetensors`` file says besides its tensors; nothing for any other file."""
    if _head(path)[8:9] != b"{":
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _damaged(path, error) from None


def write(state: State, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Save tensors as ``.safetensors`` or, by any other name, as a state_dict of ``torch.save``.

    ``about`` goes into the metadata of the former; the latter has no place for it.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(plain, dict(about) if about else None)
    else:
        buffer = io.BytesIO()
        torch.save(plain, buffer)
        content = buffer.getvalue()
    write_atomically(path, content)


def _safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _torch(path: Path, trust_pickle: bool) -> Any:
    try:
        # A file, not a path: torch.load goes by the suffix of a path.
        with path.open("rb") as file, _unpickling(trust_pickle):
            return torch.load(file, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        raise LoadError(_why_refused(path, error)) from None
    except (ImportError, AttributeError) as error:
        raise LoadError(
            f"{path} holds a pickled object whose code is not here ({error}): run in the folder "
            "that has it, or save model.state_dict() instead"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes the unpickler fail in any way there is
        raise _damaged(path, error) from None


@contextlib.contextmanager
def _unpickling(trust_pickle: bool) -> Iterator[None]:
    """A trusted pickle's classes may lie in the working directory, as for a script run there."""
    here = [str(Path.cwd())] if trust_pickle else []
    sys.path[:0] = here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of the file's age and form
            yield
    finally:
        for folder in here:
            sys.path.remove(folder)


def _damaged(path: Path, error: Exception) -> LoadError:
    first = re.split(r"\. |\n", str(error).strip())[0][:120]
    reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return LoadError(f"{path} is damaged or cut short ({reason}): save or copy it again")


def _why_refused(path: Path, error: pickle.UnpicklingError) -> str:
    """Name the first class or function that is not of plain tensors, as torch's message does."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found is None:
        return (
            f"{path} is damaged, or holds more than plain tensors: "
            "save model.state_dict() with torch.save"
        )
    return (
        f"{path} holds a pickled {found[1]}, and loading a pickle can run any code: save "
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
    if len(state) < len(content):
        raise LoadError(f"{path} holds several tensors of one name once prefixes are removed")
    if not state:
        raise LoadError(f"{path} holds no tensor at all")
    for name, value in state.items():
        _check(path, name, value)
    return state


def _check(path: Path, name: str, value: object) -> None:
    """Raise :class:`LoadError` unless ``value`` is a dense tensor of finite values."""
    if not isinstance(value, Tensor):
        raise LoadError(
            f"{path} has no state_dict: entry {name!r} is a {type(value).__name__}; weights "
            f"are looked for at the top and under {', '.join(WRAPPERS)}"
        )
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise LoadError(
            f"{path}: {name} is not a dense tensor of real numbers ({value.dtype}, "
            f"{value.layout}, {value.device}): save the network before it was converted"
        )
    if value.is_floating_point() and not torch.isfinite(value.float()).all():
        bad = "NaN" if torch.isnan(value).any() else "infinite values"
        raise LoadError(f"{path}: {name} contains {bad}; the training that made it diverged")


def _bare(name: str) -> str:
    stripped = name
    for prefix in PREFIXES:
        stripped = stripped.removeprefix(prefix)
    return stripped if stripped == name else _bare(stripped)
