"""What each change costs: every variant run on the same images, batch by batch.

A batch goes through the network once; at each layer it waits while all variants of that layer
run from there to the end (``replay``). So no more is held than the values of one batch.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.network import Context
from compressor.scan.replay import Replay
from compressor.scan.variants import Variant
from compressor.training.data import Data, Split, batches
from compressor.training.layout import layout

BATCH = 100
"""Images at a time: activations of more leave the processor's caches."""
LEFT = 0.01
"""Of the right answers, the least part that is taken for left."""


@dataclass(frozen=True)
class Answers:
    """Of the images: right answers (0 to 1), mean cross-entropy in nats, and the part that is
    *lost*: answered rightly by the network as it was, and no longer."""

    accuracy: float
    loss: float
    lost: float = 0.0

    def harm(self, dense: "Answers") -> float:
        """The increase of the loss, in nats, over the part of the right answers that is left.

        The loss of a network that guesses rises no further. Taken as it is, it would have a layer's
        last weights go for nothing once it does no more than guess.
        """
        left = 1 - self.lost / dense.accuracy if dense.accuracy else 1.0
        return (self.loss - dense.loss) / max(left, LEFT)

    def row(self) -> dict[str, float]:
        return {"accuracy": self.accuracy, "loss": self.loss, "lost": self.lost}


@dataclass
class _Sums:
    """Over the images so far."""

    right: int = 0
    lost: int = 0
    loss: float = 0.0

    def add(self, logits: Tensor, y: Tensor, before: Tensor | None) -> Tensor:
        """Count one batch; gives which answers are right, bool (B,)."""
        right = logits.argmax(1) == y
        self.right += int(right.sum())
        self.lost += 0 if before is None else int((before & ~right).sum())
        self.loss += float(functional.cross_entropy(logits.double(), y, reduction="sum"))
        return right

    def plus(self, other: "_Sums") -> "_Sums":
        return _Sums(self.right + other.right, self.lost + other.lost, self.loss + other.loss)

    def answers(self, images: int) -> Answers:
        return Answers(self.right / images, self.loss / images, self.lost / images)


@dataclass(frozen=True, eq=False)
class Measured:
    """The network as it is, each variant in the order given, and which images were right."""

    dense: Answers
    points: list[Answers]
    right: Tensor


@dataclass
class _Pass:
    """What one batch adds."""

    dense: _Sums = field(default_factory=_Sums)
    sums: list[_Sums] = field(default_factory=list)
    right: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


def measure(
    replay: Replay, variants: Sequence[Variant], split: Split, data: Data, context: Context
) -> Measured:
    """Run all variants on ``split``, on the CPU one batch on each of torch's threads.

    Many small operators of one batch keep several threads waiting for each other; batches do not.
    """
    starts = [replay.start(variant.names) for variant in variants]
    order = sorted(range(len(variants)), key=starts.__getitem__)
    stopped, lock = threading.Event(), threading.Lock()
    every = torch.arange(len(split))
    parts = [split.take(every[at : at + BATCH]) for at in range(0, len(split), BATCH)]
    threads = torch.get_num_threads() if context.device.type == "cpu" else 1
    one, _ = next(batches(split, data, batch_size=1, device=context.device))
    lie = layout(lambda x: replay.begin(x).output({}), one)

    def work(part: Split) -> _Pass:
        ((x, y),) = batches(part, data, batch_size=BATCH, device=context.device)
        found = _Pass(sums=[_Sums() for _ in variants])
        cursor = replay.begin(x.contiguous(memory_format=lie))
        found.right = found.dense.add(cursor.output({}), y, None)
        for at in order:
            if stopped.is_set():
                break
            cursor.advance(starts[at])
            variant = variants[at]
            logits = cursor.output(variant.changes(), variant.operators)
            found.sums[at].add(logits, y, found.right)
            with lock:
                advance(variant.unit)
        found.right = found.right.cpu()
        return found

    with (
        context.progress.task("scan", len(parts) * len(variants)) as advance,
        _threads(threads) as pool,
    ):
        try:
            passes = list(map(work, parts) if pool is None else pool.map(work, parts))
        finally:
            stopped.set()  # whatever ends this early: workers do not go on
    total, sums = _Sums(), [_Sums() for _ in variants]
    for each in passes:
        total = total.plus(each.dense)
        sums = [one.plus(other) for one, other in zip(sums, each.sums, strict=True)]
    return Measured(
        total.answers(len(split)),
        [each.answers(len(split)) for each in sums],
        torch.cat([each.right for each in passes]),
    )


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor | None]:
    if count == 1:
        yield None
        return
    torch.set_num_threads(1)  # of every worker's own
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(count)


def answers(
    module: Any, split: Split, data: Data, right: Tensor | None, context: Context
) -> tuple[Answers, Tensor]:
    """A whole network on ``split``; ``right`` (N,) bool are the answers that may be lost."""
    sums, found = _Sums(), []
    module.eval()
    with torch.no_grad():
        for at, (x, y) in enumerate(batches(split, data, batch_size=BATCH, device=context.device)):
            before = None if right is None else right[at * BATCH : at * BATCH + len(y)]
            before = None if before is None else before.to(y.device)
            found.append(sums.add(module(x), y, before).cpu())
    return sums.answers(len(split)), torch.cat(found)
