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

from compressor.errors import CompressorError, ExportError
from compressor.examples import Example, inputs_of

BATCH = "batch"


def traced(module: nn.Module, example: Example) -> torch.export.ExportedProgram:
    """The graph of ``module`` in evaluation mode for a free batch; ``example`` is (1, ...).

    Raises :class:`ExportError` for a network whose course depends on its input, and for whatever
    else cannot be recorded.
    """
    inputs = inputs_of(example)
    batch = tuple(x[:1].expand(2, *x.shape[1:]).contiguous() for x in inputs)  # 1 is baked in
    free: Any = tuple({0: torch.export.Dim(BATCH)} for _ in inputs)
    if any(
        p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values()
    ):
        free = (free,)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                module.eval(),
                batch,
                dynamic_shapes=free,
                strict=False,
            )
    except CompressorError:
        raise
    except Exception as error:  # torch.export's errors have no common base but this
        raise ExportError(f"the network cannot be traced: {reason(error)}") from error


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
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
