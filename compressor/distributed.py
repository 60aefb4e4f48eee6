"""One program on several processes: which of them this one is, and what they tell each other.

``torchrun --nproc-per-node N -m compressor run ...`` starts N equal processes (*ranks*). All take
the same steps from the same files and settings, so all hold the same network at every moment.
They differ in two things only: a training splits its batches among them (``training.fit``), and
the first alone writes, prints and measures time. Without torchrun there is one rank, and every
function here returns at once.

A program of its own may make the process group instead (backend ``cpu:gloo,cuda:nccl``).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from compressor.errors import CompressorError, RankLost

T = TypeVar("T")

TIMEOUT = timedelta(hours=1)
"""How long a rank waits for another that still has its connections open. One that is killed loses
them at once; so this bounds only the work that the first rank does alone."""


def world() -> int:
    """How many ranks there are."""
    return distributed.get_world_size() if _joined() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if _joined() else 0


def is_first() -> bool:
    """Whether this rank is the one that writes, prints and measures time."""
    return rank() == 0


def local_rank() -> int:
    """Which rank of its machine this is, from 0: also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def share() -> slice:
    """This rank's part of a batch, or of anything else that is numbered."""
    return slice(rank(), None, world())


def gather(value: T) -> list[T]:
    """Every rank's ``value``, on every rank."""
    if world() == 1:
        return [value]
    found: list[Any] = [None] * world()
    distributed.all_gather_object(found, value)
    return found


def total(value: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    if world() > 1:
        distributed.all_reduce(value)
    return value


def by_first(work: Callable[[], T]) -> T:
    """What ``work`` gives on the first rank, on every rank; so is an error of ours that it raises.

    The others wait: for what is written, or comes out another way each time, such as a time.
    """
    if world() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = work()
        except CompressorError as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


@contextmanager
def in_turn() -> Iterator[None]:
    """The first rank of each machine goes first: what it downloads, the others find."""
    if world() > 1 and local_rank() > 0:
        gather(None)
    yield
    if world() > 1 and local_rank() == 0:
        gather(None)


@contextmanager
def started(device: str) -> Iterator[None]:
    """Join the ranks that torchrun has started, if it has; leave them afterwards.

    Raises :class:`RankLost` where another rank ends before its time.
    """
    if not _launched() or _joined():
        yield
        return
    cuda = device.startswith("cuda") and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    with _ended_by_torchrun():
        try:
            yield
            gather(None)  # none closes its connections while another still uses them
        except RuntimeError as error:
            if _lost(error):
                raise RankLost(_LOST) from None
            raise
    distributed.destroy_process_group()


_LOST = (
    "another process of this run has ended before its time: see what it said; the same command "
    "with --resume goes on from the last whole epoch"
)


@contextmanager
def _ended_by_torchrun() -> Iterator[None]:
    """torchrun sends SIGTERM to the ranks that are left when one of them fails.

    One that has noticed by itself goes on to say so: torchrun gives it half a minute.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise RankLost(_LOST)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    later = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except RankLost:
        later = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGTERM, later)


def _lost(error: RuntimeError) -> bool:
    """torch has no type of its own for it: gloo's and NCCL's words for a peer that is gone."""
    words = ("gloo", "Connection closed", "Connection reset", "NCCL", "Broken pipe")
    return isinstance(error, distributed.DistError) or any(word in str(error) for word in words)


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _launched() -> bool:
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in needed) and int(os.environ["WORLD_SIZE"]) > 1
