"""What widths layers may have: not below a least one, and multiples of what the hardware likes.

Both hold for the channels along an axis of a tensor (what a layer makes, or what it reads), which
several groups may share. So they are met axis by axis, the smallest first: each decides on those of
its channels that no smaller one has decided on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.channels.allocation import Removed
from compressor.channels.cost import Macs
from compressor.channels.importance import Scores

Classes = NDArray[np.int64]
BLOCKS = (16, 8)
"""Channels that runtimes compute together: a width that is a multiple of one suits them."""


@dataclass(frozen=True, eq=False)
class Step:
    """An axis: ``own`` are the classes decided here, each ``width`` channels wide; ``others``
    the classes (one entry a channel) decided before, or frozen."""

    own: Classes
    width: int
    others: Classes

    def kept(self, alive: NDArray[np.bool_], least: int, keep: int, multiple: int) -> int:
        """How many of ``own`` should stay, ``least`` at least: the nearest to those alive."""
        counts = np.arange(len(self.own) + 1)
        widths = int(alive[self.others].sum()) + self.width * counts
        allowed = (widths % multiple == 0) & (widths >= min(keep, widths[-1])) & (counts >= least)
        allowed[-1] = True
        distance = np.abs(counts - int(alive[self.own].sum()))
        return int(counts[allowed][::-1][np.argmin(distance[allowed][::-1])])  # of two the wider


class Limits:
    """``keep`` is the fewest channels of a layer; its width is a multiple of ``multiple``, or as it
    was where none fits. ``axes`` are the classes along every axis that counts, 0 for frozen."""

    def __init__(self, axes: Iterable[Classes], keep: int, multiple: int) -> None:
        self.keep, self.multiple = keep, multiple
        axes = list(axes)
        self.count = 1 + max((int(each.max()) for each in axes if len(each)), default=0)
        distinct = {each.tobytes(): each for each in axes}
        counted = [(each, *np.unique(each, return_counts=True)) for each in distinct.values()]
        decided: set[int] = {0}
        self.steps = []
        for axis, classes, counts in sorted(counted, key=lambda each: len(each[1])):
            mine = np.array([each not in decided for each in classes.tolist()], dtype=bool)
            if mine.any():
                own = classes[mine]
                others = axis[~np.isin(axis, own)]
                self.steps.append(Step(own, int(counts[mine].max()), others))
                decided.update(own.tolist())

    @classmethod
    def of(cls, macs: Macs, keep: int, multiple: int) -> "Limits":
        """Of a network: for all axes of its tensors, and those that products sum over."""
        factors = [each for term in macs.terms for each in term.factors]
        return cls([*macs.dependencies.axes.values(), *factors], keep, multiple)

    def met(self, removed: Removed, worths: Scores) -> Removed:
        """``removed``, with channels added or taken back (by their worth) where a limit asks."""
        alive = np.ones(len(worths), dtype=bool)
        alive[removed] = False
        for step in self.steps:
            worth = worths[step.own]
            fixed = int(np.isinf(worth).sum())
            kept = step.kept(alive, fixed, self.keep, self.multiple)
            order = step.own[np.lexsort((worth, alive[step.own]))]  # those to go first come first
            alive[order[: len(order) - kept]] = False
            alive[order[len(order) - kept :]] = True
        return np.flatnonzero(~alive)

    def in_blocks(self, removed: Removed, convolved: Classes) -> Removed:
        """``removed`` without those that would take a width of whole blocks to one that is not,
        along axes of classes that are ``convolved``.

        A convolution with 63 channels takes longer than one with 64.
        """
        alive = np.ones(self.count, dtype=bool)
        alive[removed] = False
        for step in self.steps:
            whole = len(step.others) + step.width * len(step.own)
            blocks = BLOCKS if np.isin(step.own, convolved).any() else ()
            block = next((each for each in blocks if whole % each == 0), 1)
            left = int(alive[step.own].sum())
            kept = step.kept(alive, left, self.keep, block)
            dead = step.own[~alive[step.own]]
            alive[dead[: kept - left]] = True
        return np.flatnonzero(~alive)
