"""A module's graph as ``torch.export`` records it, from which channels and ONNX both start."""

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor import user_code
from compressor.errors import CompressorError, ExportError
from compressor.examples import Example, inputs_of

BATCH = "batch"


def traced(
    module: nn.Module, example: Example, *, source: bool = True
) -> torch.export.ExportedProgram:
    """The graph of ``module`` in evaluation mode for a free batch; ``example`` is (1, ...).

    Where its forward makes a plain number of the batch (``len(x)``), its Python code is followed
    instead, which takes longer; without ``source`` there is no such code of its owner's. Raises
    :class:`ExportError` for a network whose course depends on its input, and for whatever else
    cannot be recorded.
    """
    inputs = inputs_of(example)
    try:
        return _recorded(module, inputs, strict=False)
    except CompressorError:
        raise
    except Exception as error:  # torch.export's errors have no common base but this
        if _FIXED not in str(error):
            raise ExportError(f"the network cannot be traced: {reason(error)}") from error
        failed = error
    if not source:
        raise ExportError("the network cannot be traced: its batch is fixed") from failed
    try:
        return _recorded(module, inputs, strict=True)
    except Exception as error:  # as above
        failed = error
    raise ExportError(f"the network cannot be traced: {_fixed_batch(module, inputs)}") from failed


_FIXED = "Constraints violated"
"""How torch.export says that the batch is not free after all."""


def _recorded(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], *, strict: bool
) -> torch.export.ExportedProgram:
    free: Any = tuple({0: torch.export.Dim(BATCH)} for _ in inputs)
    arguments = inspect.signature(module.forward).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in arguments):
        free = (free,)
    with quiet(), torch.no_grad():
        return torch.export.export(
            module.eval(),
            _batch(inputs, 2),  # 1 is baked in
            dynamic_shapes=free,
            strict=strict,
        )


def _batch(inputs: tuple[torch.Tensor, ...], size: int) -> tuple[torch.Tensor, ...]:
    return tuple(x[:1].expand(size, *x.shape[1:]).contiguous() for x in inputs)


def _fixed_batch(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    """What in the network fixes the batch: a line that fails for another one, if there is any."""
    try:
        with quiet(), torch.no_grad():
            module(*_batch(inputs, 3))
    except Exception as error:  # whatever the network's own code raises
        if line := user_code.own_line(error):
            return (
                f"its forward fixes the batch, {line}: take the size from its input there, by "
                "x.shape[0], or leave it open, by -1"
            )
    return (
        "its forward fixes the batch, by a loop over it, int() or a number in its code: take sizes "
        "from its input, by x.shape[0], and compute the batch as a whole"
    )


def reason(error: BaseException) -> str:
    """What went wrong in the first place: the exporter wraps it in advice for its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    call = r'call raised this error:\s+File "([^"]+)", line (\d+), in \S+\s+(\S.*)'
    where = re.search(call, text)
    if "data-dependent" in text and where is not None:
        return (
            f"its forward depends on the values of its input, at {Path(where[1]).name}:{where[2]} "
            f"({where[3].strip()}); make that choice beforehand, or by torch.where"
        )
    return next((line for line in text.splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter chats on both streams, by logging and by warnings; none of it is for users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
