"""What training minimises: the labels' cross-entropy, or a teacher's answers along with it."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import StageError
from compressor.settings import Training

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (B, classes), inputs (B, ...), labels int64 (B,)) -> mean loss (), in nats."""


def loss_of(training: Training, teacher: nn.Module | None) -> Loss:
    """The loss that ``training`` asks for.

    Raises :class:`StageError` where it distils and there is no ``teacher``.
    """
    if training.distill == 0:
        return lambda logits, x, y: functional.cross_entropy(logits, y)
    if teacher is None:
        raise StageError(f"distill is {training.distill:g}, but there is no teacher: leave it out")

    def loss(logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            answers = teacher(x).to(logits.dtype)  # 16 bits under autocast
        soft = distillation(logits, answers, training.temperature)
        hard = functional.cross_entropy(logits, y)
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
