"""What a network is for: its loss, what it is judged by, and what it takes.

A :class:`Task` goes with the data (``Data.task``), so whoever trains or measures has both. Without
a word, it is classification: logits in, cross-entropy and top-1 accuracy. Any other comes from a
user's file, ``--task FILE.py:NAME``: a class or a function that gives an object with ::

    metric = "iou"               what the figure is called in reports
    higher_is_better = True
    percent = True               whether it is a fraction, shown in percent
    def loss(self, output, target): ...     -> a scalar to minimise
    def score(self, output, target): ...    -> (B,), each sample's figure; their mean is reported
    def example(self): ...       (optional) one input, batch first, or a tuple of several

``output`` is what the network gives, ``target`` the second half of what ``--data`` gives.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor import user_code
from compressor.errors import UsageError
from compressor.examples import Example, inputs_of, outputs_of


class Task:
    """Classification, and what every task has; see the top of this module.

    ``labels`` is whether targets are classes, whole numbers (N,): only then are data checked and
    split by class, and right and wrong answers counted.
    """

    metric = "accuracy"
    higher_is_better = True
    percent = True
    labels = True

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """The mean loss () of a batch, in nats: ``output`` (B, classes), ``target`` int64 (B,)."""
        return functional.cross_entropy(output, target)

    def score(self, output: Any, target: Tensor) -> Tensor:
        """Which answers are right, bool (B,)."""
        found: Tensor = output.argmax(1) == target
        return found

    def example(self) -> Example | None:
        """One input, batch first; None where the network or its file tells."""
        return None

    def row(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "percent": self.percent,
        }


CLASSIFICATION = Task()


@dataclass(frozen=True)
class _Users(Task):
    """A task of the user's, whose code is run so that what it raises is explained."""

    spec: str
    own: Any
    metric: str = "score"
    higher_is_better: bool = True
    percent: bool = False
    labels: bool = False

    def loss(self, output: Any, target: Tensor) -> Tensor:
        found = self._run("loss", output, target)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise UsageError(f"--task {self.spec}: loss gives {_shown(found)}, not one number")
        return found.reshape(())

    def score(self, output: Any, target: Tensor) -> Tensor:
        found = self._run("score", output, target)
        if not isinstance(found, Tensor) or found.shape != (len(target),):
            raise UsageError(
                f"--task {self.spec}: score gives {_shown(found)}, not a figure for each of "
                f"{len(target)} samples"
            )
        return found.detach().float()

    def example(self) -> Example | None:
        if not hasattr(self.own, "example"):
            return None
        made = self._run("example")
        given = tuple(made) if isinstance(made, list) else made
        every = inputs_of(given) if isinstance(given, Tensor | tuple) else ()
        if not every or not all(isinstance(x, Tensor) and x.ndim and len(x) for x in every):
            raise UsageError(
                f"--task {self.spec}: example gives {_shown(made)}, not a tensor with a batch, or "
                "a tuple of them"
            )
        return given

    def _run(self, name: str, *arguments: Any) -> Any:
        where = self.spec.rpartition(":")[0]
        with user_code.running(where, f"--task {self.spec}", UsageError):
            return getattr(self.own, name)(*arguments)


def load(spec: str) -> Task:
    """The task that ``FILE.py:NAME`` or ``MODULE:NAME`` makes.

    Raises :class:`UsageError` where it lacks a loss or a score, and for whatever its code raises.
    """
    where, _, name = spec.rpartition(":")
    if not where:
        raise UsageError(f"--task {spec} lacks the name: give FILE.py:TASK")
    made = user_code.function(where, name, "--task", UsageError)
    with user_code.running(where, f"--task {spec}", UsageError):
        own = made() if isinstance(made, type) or not hasattr(made, "loss") else made
    for needed in ("loss", "score"):
        if not callable(getattr(own, needed, None)):
            raise UsageError(f"--task {spec} has no {needed}(output, target)")
    known = ("metric", "higher_is_better", "percent")
    told = {key: getattr(own, key) for key in known if hasattr(own, key)}
    if not isinstance(told.get("metric", ""), str) or not all(
        isinstance(told.get(key, True), bool) for key in ("higher_is_better", "percent")
    ):
        raise UsageError(
            f"--task {spec}: metric is a text, higher_is_better and percent are truths"
        )
    return _Users(spec, own, **told)


def imitation(output: Any, answer: Any) -> Tensor:
    """How far a network is from its teacher where outputs are no logits: the mean squared error."""
    pairs = zip(outputs_of(output), outputs_of(answer), strict=True)
    parts = [functional.mse_loss(a.float(), b.float()) for a, b in pairs if a.is_floating_point()]
    return torch.stack(parts).mean()


def in_float32(output: Any) -> Any:
    """An output with its 16-bit floats, as autocast gives them, widened."""
    from torch.utils import _pytree as pytree

    def wide(leaf: Any) -> Any:
        half = isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
        return leaf.float() if half else leaf

    return pytree.tree_map(wide, output)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
