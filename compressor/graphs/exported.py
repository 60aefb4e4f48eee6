"""A ``.pt2`` file (``torch.export.save``) -> a module with layers.

Loading such a file can run code in two ways: tensors that it keeps as pickles, and the symbolic
sizes in its graph, which torch hands to ``sympy.sympify``, which evaluates them. So pickles are
refused unless trusted, and a size may hold nothing but numbers, symbols, and sympy's own functions.

A network that was exported in evaluation mode has no dropout left, and retrains without it; batch
norms are layers again and take part. One exported in training mode has both.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressorError, ExportError, LoadError
from compressor.examples import Example
from compressor.graphs.freed import Freed
from compressor.graphs.relayer import layered
from compressor.tracing import quiet, reason, traced

_SIZE = re.compile(r"[\w\s+\-*/(),<>=~|&.]*")
_SYMBOL = re.compile(r"[suf]\d+|zuf\d+|u?batch|_?[A-Z][A-Za-z]*|oo|True|False|\d+(\.\d+)?(e-?\d+)?")


def read(path: Path, given: Example | None, *, trust_pickle: bool) -> tuple[nn.Module, Example]:
    """(module, one input) of a ``.pt2`` file; ``given`` goes before the file's own example.

    Raises :class:`LoadError` where the file is damaged, or would run code, or cannot take any
    batch.
    """
    found = program(path, trust_pickle=trust_pickle)
    example = given if given is not None else _example(path, found)
    return rebuilt(path, found, example), example


def program(path: Path, *, trust_pickle: bool) -> torch.export.ExportedProgram:
    """What the file holds, as torch has it. Raises :class:`LoadError` as :func:`read` does."""
    if not trust_pickle:
        check_safe(path)
    try:
        with quiet():
            return torch.export.load(path)
    except MemoryError:
        raise
    except Exception as error:  # whatever torch's reader meets
        raise LoadError(
            f"{path} cannot be read as a torch.export file ({reason(error)[:150]}): save it again "
            "with this version of torch"
        ) from None


_FREE = "export it with a free one: dynamic_shapes=({0: torch.export.Dim('batch')},)"


def rebuilt(
    path: Path, program: torch.export.ExportedProgram, example: Example, instead: str = _FREE
) -> nn.Module:
    """A module of layers for any batch, also where the program was recorded for one alone."""
    module = layered(program)
    try:
        traced(module, example, source=False)
    except ExportError:  # sizes of one batch stand in it
        batch = _recorded_batch(program)
        try:
            return layered(traced(Freed(module, batch), example, source=False))
        except CompressorError as error:
            said = str(error).removeprefix("the network cannot be traced: ")
            raise LoadError(
                f"{path} cannot be run with another batch than {batch} ({said}): {instead}"
            ) from error
    return module


def check_safe(path: Path) -> None:
    """Raise :class:`LoadError` where loading the file could run code of its own."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                if name.endswith(".json"):
                    _check_json(path, json.loads(archive.read(name)))
                elif name.endswith((".pt", ".pkl")) and "sample_inputs" not in name:
                    _refuse(path, "weights")
    except (zipfile.BadZipFile, ValueError, KeyError, RecursionError) as error:
        raise LoadError(f"{path} is damaged or cut short ({error}): save it again") from None


def _check_json(path: Path, content: Any) -> None:
    for key, value in _entries(content):
        if key == "use_pickle" and value:
            _refuse(path, "tensors")
        if key == "path_name" and str(value).startswith(("custom_obj", "opaque_obj")):
            _refuse(path, "objects")
        if key == "expr_str" and not _plain(str(value)):
            raise LoadError(f"{path}: a size in its graph is no formula: {str(value)[:80]!r}")


def _plain(text: str) -> bool:
    words = re.findall(r"[A-Za-z_]\w*", text)
    return _SIZE.fullmatch(text) is not None and all(map(_SYMBOL.fullmatch, words))


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value)


def _refuse(path: Path, what: str) -> None:
    raise LoadError(
        f"{path} keeps {what} as pickles, and loading a pickle can run any code: export plain "
        "dense tensors, or pass --trust-pickle if you made this file"
    )


def _example(path: Path, program: torch.export.ExportedProgram) -> Example:
    """Zeros of the sizes that the program was recorded with, of batch 1."""
    signature = program.graph_signature
    shapes = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor) or value.ndim == 0:
                raise LoadError(f"{path}: its input {node.name!r} is no tensor with a batch")
            shapes.append((tuple(_number(size) for size in value.shape[1:]), value.dtype))
    if not shapes:
        raise LoadError(f"{path} takes no input: it is no network")
    own = program.example_inputs[0] if program.example_inputs else ()
    if len(own) == len(shapes) and all(isinstance(each, torch.Tensor) for each in own):
        made = tuple(each[:1].detach().clone() for each in own)
    else:
        made = tuple(torch.zeros(1, *shape, dtype=dtype) for shape, dtype in shapes)
    return made[0] if len(made) == 1 else made


def _number(size: Any) -> int:
    hint = getattr(getattr(size, "node", None), "hint", None)
    return int(size) if isinstance(size, int) else int(hint or 1)


def _recorded_batch(program: torch.export.ExportedProgram) -> int:
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs:
            return _number(node.meta["val"].shape[0])
    return 1
