"""torch as a recipe fixes it, so that the same input, recipe and seed give the same bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compressor.errors import UsageError


@contextmanager
def deterministic(threads: int, device: str) -> Iterator[torch.device]:
    """Fix the thread count and choose deterministic kernels; undone afterwards.

    Sums depend on how many threads share them, so the count is part of the recipe. Raises
    :class:`UsageError` for a device that this torch does not have.
    """
    chosen = _device(device)
    if chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: give cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: this torch finds no CUDA device; use --device cpu")
    return device
