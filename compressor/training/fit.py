"""Fitting and evaluating a classifier on data that lies in memory."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import StageError
from compressor.network import Context
from compressor.settings import Training
from compressor.training.data import Data, Split, batches
from compressor.training.losses import loss_of
from compressor.training.slimming import penalise, scales


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean loss (nats), validation accuracy (0 to 1; NaN: none), last learning rate."""

    epoch: int
    loss: float
    validation: float
    lr: float

    def row(self) -> dict[str, Any]:
        row = asdict(self)
        return {key: None if value != value else value for key, value in row.items()}


def fit(
    module: nn.Module,
    training: Training,
    context: Context,
    title: str,
    after_step: Callable[[int, int], None] | None = None,
) -> list[Epoch]:
    """Train every parameter of ``module`` in place; the last epoch is what stays.

    ``after_step(done, steps)`` is called after each step of the optimiser, with the number of this
    step, from 1, and of all. It may change masks, but no parameter may come or go.
    The same module, data, settings, teacher and seed give the same weights on one machine and
    thread count. Raises :class:`StageError` where the loss stops being finite, or where there is
    no teacher to distil from or no batch norm to slim.
    """
    data = context.data
    if data is None or training.epochs == 0:
        return []
    generator = torch.Generator().manual_seed(context.seed)
    torch.manual_seed(context.seed)
    steps = math.ceil(len(data.train.y) / training.batch_size)
    optimizer = _optimizer(module, training)
    loss_function = loss_of(training, context.teacher)
    slimmed = scales(module) if training.slimming else []
    history: list[Epoch] = []
    with context.progress.task(title, steps * training.epochs) as advance:
        for epoch in range(training.epochs):
            module.train()
            total = torch.zeros((), dtype=torch.float64)
            for step, (x, y) in enumerate(_training_batches(data, training, generator, context)):
                if len(y) == 1 and steps > 1:
                    continue  # a left-over image, of which batch norm cannot take a variance
                rate = training.lr * _schedule(
                    epoch * steps + step, steps * training.epochs, training
                )
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = loss_function(module(x), x, y)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                penalise(slimmed, training.slimming)
                optimizer.step()
                if after_step is not None:
                    after_step(epoch * steps + step + 1, steps * training.epochs)
                total += loss.detach().double().cpu() * len(y)
                advance(_note(epoch, training, history))
            mean = float(total) / len(data.train.y)
            if not math.isfinite(mean):
                raise StageError(
                    f"{title}: the loss is {mean} in epoch {epoch + 1}; "
                    f"try a lower learning rate than {training.lr:g}"
                )
            history.append(Epoch(epoch + 1, mean, evaluate(module, data, data.validation), rate))
    return history


def evaluate(module: nn.Module, data: Data, split: Split, batch_size: int = 500) -> float:
    """Top-1 accuracy (0 to 1) in evaluation mode; NaN for an empty split."""
    if len(split.y) == 0:
        return math.nan
    was_training = module.training
    module.eval()
    device = next(module.parameters()).device
    correct = 0
    with torch.no_grad():
        for x, y in batches(
            split,
            data,
            batch_size=batch_size,
            shuffle_generator=None,
            augment="none",
            device=device,
        ):
            correct += int((module(x).argmax(1) == y).sum())
    module.train(was_training)
    return correct / len(split.y)


def check_fit(module: nn.Module, example: Tensor, data: Data) -> None:
    """Raise :class:`StageError` unless the network has one output per class of the data."""
    was_training = module.training
    module.eval()
    with torch.no_grad():
        output = module(example)
    module.train(was_training)
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < data.classes:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise StageError(
            f"the network gives {shape} for one image, but {data.name} has {data.classes} classes: "
            "give the data set that it was trained on"
        )


def _training_batches(
    data: Data, training: Training, generator: torch.Generator, context: Context
) -> Any:
    augment = data.augment if training.augment == "auto" else training.augment
    return batches(
        data.train,
        data,
        batch_size=training.batch_size,
        shuffle_generator=generator,
        augment=augment,
        device=context.device,
    )


def _schedule(step: float, steps: float, training: Training) -> float:
    """Linear warm-up, then half a cosine to 0, or the tail of it; a factor on the learning rate."""
    if training.rewind:
        whole = steps * training.rewind / training.epochs
        step, steps = whole - steps + step, whole
    warmup = training.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def _optimizer(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    weights = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if training.optimizer == "adam":
        # Decoupled decay: L2 inside Adam's normalised gradient acts on rarely used weights most.
        return torch.optim.AdamW(groups, lr=training.lr, betas=(training.momentum, 0.999))
    return torch.optim.SGD(
        groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0
    )


def _note(epoch: int, training: Training, history: list[Epoch]) -> str:
    note = f"epoch {epoch + 1}/{training.epochs}"
    if history:
        last = history[-1]
        note += f"  loss {last.loss:.4f}  validation {100 * last.validation:.2f} %"
    return note
