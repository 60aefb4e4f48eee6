"""What training minimises: the labels' cross-entropy, or a teacher's answers along with it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import StageError
from compressor.settings import Training
from compressor.tasks import CLASSIFICATION, Task, imitation, in_float32

Loss = Callable[[Any, Tensor, Tensor], Tensor]
"""(outputs, inputs (B, ...), targets (B, ...)) -> mean loss ()."""


def loss_of(training: Training, teacher: nn.Module | None, task: Task = CLASSIFICATION) -> Loss:
    """The loss of the ``task``, with a teacher's answers where ``training`` asks for them.

    Raises :class:`StageError` where it distils and there is no ``teacher``.
    """
    if training.distill == 0:
        return lambda output, x, y: task.loss(output, y)
    if teacher is None:
        raise StageError(f"distill is {training.distill:g}, but there is no teacher: leave it out")

    def loss(output: Any, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            answers = in_float32(teacher(x))  # 16 bits under autocast
        if task.labels:
            soft = distillation(output, answers, training.temperature)
        else:
            soft = imitation(output, answers)
        hard = task.loss(output, y)
        return (1 - training.distill) * hard + training.distill * soft

    return loss


def distillation(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the softmaxes at temperature T, the mean over the batch.

    ``logits`` and ``answers``: (B, classes), student and teacher. The gradient is that of the
    cross-entropy with soft targets; T^2 keeps its size whatever T is (Hinton, Vinyals and Dean
    2015, arXiv:1503.02531, section 2).
    """
    student = functional.log_softmax(logits / temperature, 1)
    targets = functional.log_softmax(answers / temperature, 1)
    divergence = functional.kl_div(student, targets, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def frozen(module: nn.Module) -> nn.Module:
    """A copy to learn from: in evaluation mode, and out of any optimiser's reach."""
    return copy.deepcopy(module).eval().requires_grad_(False)
