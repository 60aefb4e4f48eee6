"""Fitting a network to data that lies in memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from compressor import distributed
from compressor.errors import StageError
from compressor.network import Context
from compressor.progress import Step
from compressor.settings import Training
from compressor.tasks import in_float32
from compressor.training.checkpoints import (
    State,
    align_random,
    load_module,
    random_state,
    set_random_state,
)
from compressor.training.data import Data, batches, on_device
from compressor.training.evaluation import evaluate
from compressor.training.layout import layout
from compressor.training.losses import loss_of
from compressor.training.precision import autocast, scaler
from compressor.training.ranks import average_statistics, check_equal, parallel
from compressor.training.slimming import penalise, scales

AfterStep = Callable[[int, int], None]
"""Called after each step of the optimiser with (number of the step, from 1; steps in all).

It may change masks and codebooks, the same way on every rank, but no parameter may come or go. One
that remembers something has ``state_dict()`` and ``load_state_dict(state)``, of tensors and plain
values: its state is kept and given back with the network's where a training is resumed.
"""


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
    after_step: AfterStep | None = None,
) -> list[Epoch]:
    """Train every parameter of ``module`` in place; the last epoch is what stays.

    The same module, data, settings, teacher and seed give the same weights on one machine, thread
    count and number of ranks; so does a training that goes on from ``context.checkpoints``. Raises
    :class:`StageError` where the loss stops being finite, where there is no teacher to distil from
    or no batch norm to slim, or where a batch is too small for its ranks or their networks differ.
    """
    data = context.data
    if data is None or training.epochs == 0:
        return []
    checkpoint = context.checkpoints.next() if context.checkpoints else None
    state = checkpoint.load() if checkpoint else None
    if state is not None:
        load_module(module, state["module"])
    check_equal(module, f"{title}: at the beginning")
    session = _Session(module, training, data, context, title, after_step)
    if state is not None:
        session.load(state)
    left = training.epochs - len(session.history)
    if left:
        with context.progress.task(title, session.steps * left) as advance:
            for _ in range(left):
                session.epoch(advance)
                if checkpoint:
                    checkpoint.save(session.state())
    align_random(context.device)
    return session.history


class _Session:
    """A training under way: what changes from step to step, and what makes a step."""

    def __init__(
        self,
        module: nn.Module,
        training: Training,
        data: Data,
        context: Context,
        title: str,
        after_step: AfterStep | None,
    ) -> None:
        self.module, self.training, self.title = module, training, title
        self.data, self.device, self.after_step = data, context.device, after_step
        self.train = on_device(data.train, context.device)
        self.steps = math.ceil(len(data.train.y) / training.batch_size)
        self.generator = torch.Generator().manual_seed(context.seed)
        torch.manual_seed(context.seed + distributed.rank())  # what layers draw: dropout
        self.optimizer = _optimizer(module, training)
        self.scaler = scaler(training.precision, context.device)
        self.loss_function = loss_of(training, context.teacher, data.task)
        self.slimmed = scales(module) if training.slimming else []
        self.history: list[Epoch] = []
        example, _ = next(iter(batches(data.train, data, batch_size=2)))
        self.example = example.to(self.device)
        self.layout = layout(module.eval(), self.example)
        self.runner = self._runner()

    def _runner(self) -> nn.Module:
        """What is called in place of the module: compiled, and with gradients averaged."""
        runner: nn.Module = self.module
        if distributed.world() > 1:
            self._check_shares()
            runner = parallel(runner, self.example.contiguous(memory_format=self.layout))
        # Given the wrapper, the compiler cuts its graph where gradients are sent.
        return cast(nn.Module, torch.compile(runner)) if self.training.compile else runner

    def _check_shares(self) -> None:
        """Two images at least for each rank, for a batch norm to take their variance."""
        smallest = min(self.training.batch_size, len(self.data.train))
        if smallest < 2 * distributed.world():
            raise StageError(
                f"{self.title}: a batch of {smallest} images is too small for "
                f"{distributed.world()} processes: give each two images or more"
            )

    def epoch(self, advance: Step) -> None:
        """One pass over the training images, and what it came to."""
        self.runner.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        begun = len(self.history) * self.steps
        for step, (x, y) in enumerate(self._batches()):
            rate = self.training.lr * _schedule(
                begun + step, self.steps * self.training.epochs, self.training
            )
            whole = min(self.training.batch_size, len(self.train) - step * self.training.batch_size)
            if whole < min(2 * distributed.world(), self.training.batch_size) and self.steps > 1:
                continue  # left-over images, too few for a batch norm to take a variance of
            total += self._step(x, y, rate, whole) * len(y)
            advance(_note(len(self.history), self.training, self.history, self.data.task.percent))
            if self.after_step is not None:
                self.after_step(begun + step + 1, self.steps * self.training.epochs)
        self._finish_epoch(float(distributed.total(total)) / len(self.train), rate)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        wanted = self.training.augment
        return batches(
            self.train,
            self.data,
            batch_size=self.training.batch_size,
            shuffle_generator=self.generator,
            augment=self.data.augment if wanted == "auto" else wanted,
            device=self.device,
            share=distributed.share(),
        )

    def _step(self, x: Tensor, y: Tensor, rate: float, whole: int) -> Tensor:
        """The mean loss of this rank's images, which are part of a batch of ``whole``."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x = x.contiguous(memory_format=self.layout)
        with autocast(self.training.precision, self.device):
            loss = self.loss_function(in_float32(self.runner(x)), x, y)
        self.optimizer.zero_grad(set_to_none=True)
        # Ranks' gradients are averaged: of unequal shares, the larger counts for more.
        weight = len(y) * distributed.world() / whole
        self.scaler.scale(loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
        if self.slimmed:
            self.scaler.unscale_(self.optimizer)
            penalise(self.slimmed, self.training.slimming)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach().double()

    def _finish_epoch(self, mean: float, rate: float) -> None:
        number = len(self.history) + 1
        if not math.isfinite(mean):
            raise StageError(
                f"{self.title}: the loss is {mean} in epoch {number}; "
                f"try a lower learning rate than {self.training.lr:g}"
            )
        average_statistics(self.module)
        check_equal(self.module, f"{self.title}: after epoch {number}")
        accuracy = evaluate(self.module, self.data, self.data.validation, share=distributed.share())
        self.history.append(Epoch(number, mean, accuracy, rate))

    def state(self) -> State:
        """All that the next epoch depends on; once there is none, all that later work does."""
        state: State = {
            "module": {name: value.cpu() for name, value in self.module.state_dict().items()},
            "history": [asdict(epoch) for epoch in self.history],
            "random": random_state(self.device),
        }
        if len(self.history) < self.training.epochs:
            state["optimizer"] = self.optimizer.state_dict()
            state["scaler"] = self.scaler.state_dict()
            state["generator"] = self.generator.get_state()
        own = getattr(self.after_step, "state_dict", None)
        if own is not None:
            state["after_step"] = own()
        return state

    def load(self, state: State) -> None:
        """Go on from :meth:`state`; the module has its own already."""
        self.history = [Epoch(**row) for row in state["history"]]
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.generator.set_state(state["generator"])
        take = getattr(self.after_step, "load_state_dict", None)
        if take is not None:
            take(state["after_step"])
        set_random_state(state["random"], self.device)


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


def _note(epoch: int, training: Training, history: list[Epoch], percent: bool) -> str:
    note = f"epoch {epoch + 1}/{training.epochs}"
    if history:
        last = history[-1]
        held = f"{100 * last.validation:.2f} %" if percent else f"{last.validation:.5g}"
        note += f"  loss {last.loss:.4f}  validation {held}"
    return note
