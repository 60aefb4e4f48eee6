"""torch as a recipe fixes it, so that the same input, recipe and seed give the same bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compressor import distributed
from compressor.errors import UsageError


@contextmanager
def deterministic(threads: int | None, device: str) -> Iterator[torch.device]:
    """Fix the thread count (None: as it is) and choose deterministic kernels; undone afterwards.

    Sums depend on how many threads share them, so the count is part of the recipe. Raises
    :class:`UsageError` for a device that this torch does not have.
    """
    chosen = find_device(device)
    if chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads or before[0])
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def find_device(name: str) -> torch.device:
    """The device of that name; :class:`UsageError` where this torch does not have it.

    Of several ranks on CUDA, each has the GPU of its own number.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: give cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if not count:
        raise UsageError(f"--device {name}: this torch finds no CUDA device; use --device cpu")
    if device.type == "cuda" and distributed.world() > 1:
        if device.index is not None:
            raise UsageError(f"--device {name}: give cuda, of which each process takes its own")
        device = torch.device("cuda", distributed.local_rank())
    if (device.index or 0) >= count:
        raise UsageError(f"--device {name}: the last one here is {device.type}:{count - 1}")
    return device
