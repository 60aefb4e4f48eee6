"""A TorchScript archive (``torch.jit.save``) -> a module with layers.

torch's own converter turns the script into a recorded program, which then goes the way of a
``.pt2`` file. A script whose course depends on its input has no such program: the user is told to
export the network anew.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressorError, LoadError
from compressor.examples import Example, inputs_of
from compressor.graphs.exported import rebuilt
from compressor.tracing import quiet, reason

_INSTEAD = "give its state_dict and --arch, or save it with torch.export.save"


def read(path: Path, given: Example | None) -> tuple[nn.Module, Example]:
    """(module, ``given``) of a TorchScript archive, which does not tell the size of its input.

    Raises :class:`LoadError` where the file is damaged, no input is given, or the script cannot be
    recorded.
    """
    module = script(path)
    if given is None:
        raise LoadError(
            f"{path} is a TorchScript archive, which does not tell its input size; add "
            f"--input-shape {_hint(module)}"
        )
    try:
        with quiet(), torch.no_grad():
            from torch._export.converter import TS2EPConverter

            program = TS2EPConverter(module, inputs_of(given)).convert()
    except CompressorError:
        raise
    except Exception as error:  # the converter's errors have no common base but this
        raise LoadError(
            f"{path}: the script cannot be recorded ({reason(error)[:150]}): {_INSTEAD}"
        ) from None
    return rebuilt(path, program, given, _INSTEAD), given


def script(path: Path) -> Any:
    """The script in the archive, in evaluation mode. Raises :class:`LoadError`."""
    try:
        with quiet():
            return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except MemoryError:
        raise
    except Exception as error:  # torch's own reader raises RuntimeError of many kinds
        raise LoadError(f"{path} is damaged or cut short ({reason(error)[:100]})") from None


def _hint(script: Any) -> str:
    for value in script.state_dict().values():
        if value.ndim == 4:
            return f"1,{value.shape[1]},HEIGHT,WIDTH"
        if value.ndim == 2:
            return f"1,{value.shape[1]}, or 1,CHANNELS,HEIGHT,WIDTH of its images"
    return "1,CHANNELS,HEIGHT,WIDTH"
