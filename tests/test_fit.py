"""Training and evaluation: the schedule by formula, the same bits for the same seed."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import StageError
from compressor.network import Context
from compressor.progress import Progress, Step
from compressor.settings import Training
from compressor.training import fit as fit_module
from compressor.training.data import Data, Split
from compressor.training.evaluation import check_fit, evaluate
from compressor.training.fit import Epoch, fit

State = dict[str, Tensor]


def toy_data(train: int = 50, validation: int = 20, augment: str = "none") -> Data:
    """Three classes of 1 x 4 x 4 images, each bright in a row of its own."""
    total = train + validation
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(total) % 3
    x = torch.randn(total, 1, 4, 4, generator=generator)
    x[torch.arange(total), 0, y] += 2
    first, second = Split(x[:train], y[:train]), Split(x[train:], y[train:])
    return Data("toy", first, second, second, 3, (0.1,), (0.9,), augment, 0.0, "")


def linear(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def richer(seed: int = 1) -> nn.Module:
    """With everything that is random or has a mode: dropout, batch norm."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 3),
    )


def state_of(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: State, other: State) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


# ---- learning rate -----------------------------------------------------------------------------


def rates(training: Training, data: Data) -> list[float]:
    """The learning rate of every step, seen by the optimiser."""
    seen: list[float] = []
    step = torch.optim.SGD.step

    def watch(self: torch.optim.SGD, *args: Any) -> Any:
        groups = {group["lr"] for group in self.param_groups}
        assert len(groups) == 1
        seen.append(groups.pop())
        return step(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", watch)
        fit(linear(), training, Context(data), "train")
    return seen


@pytest.mark.parametrize(
    ("epochs", "warmup", "train", "batch"),
    [(3, 0.0, 50, 16), (3, 0.05, 50, 16), (2, 0.5, 50, 16), (5, 0.1, 64, 16), (1, 0.9, 50, 50)],
)
def test_the_learning_rate_warms_up_and_falls_along_half_a_cosine(
    epochs: int, warmup: float, train: int, batch: int
) -> None:
    total = epochs * -(-train // batch)
    w = warmup * total
    expected = [
        0.2 * (n + 1) / (w + 1)
        if n < w
        else 0.1 * (1 + math.cos(math.pi * (n - w) / max(1, total - w)))
        for n in range(total)
    ]
    found = rates(Training(epochs=epochs, lr=0.2, warmup=warmup, batch_size=batch), toy_data(train))
    assert found == pytest.approx(expected, rel=1e-12)
    assert max(found) <= 0.2


def test_the_shape_of_the_schedule() -> None:
    found = rates(Training(epochs=25, lr=0.2, warmup=0.2, batch_size=16), toy_data(50))
    assert len(found) == 100
    assert found[:21] == sorted(found[:21]), "rises over the first fifth"
    assert found[20] == pytest.approx(0.2), "reaches the full rate"
    assert found[20:] == sorted(found[20:], reverse=True), "falls from there"
    assert found[60] == pytest.approx(0.1), "half of it half way"
    assert found[-1] < 0.001, "ends near 0"


def test_the_history_tells_each_epochs_last_rate() -> None:
    training = Training(epochs=3, lr=0.2, batch_size=16)
    history = fit(linear(), training, Context(toy_data()), "train")
    assert [epoch.lr for epoch in history] == rates(training, toy_data())[3::4]
    assert [epoch.epoch for epoch in history] == [1, 2, 3]


# ---- one step, by hand -------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_is_the_optimisers_own(optimizer: str) -> None:
    """Decay on the weight, none on the bias; Nesterov momentum; AdamW's decoupled decay."""
    data = toy_data(train=32)
    module, other = linear(), linear()
    training = Training(
        epochs=2,
        lr=0.1,
        optimizer=optimizer,
        momentum=0.8,
        weight_decay=0.3,
        batch_size=32,
        warmup=0,
    )
    fit(module, training, Context(data), "train")
    weight, bias = other.get_parameter("1.weight"), other.get_parameter("1.bias")
    groups = [{"params": [weight], "weight_decay": 0.3}, {"params": [bias], "weight_decay": 0.0}]
    reference: torch.optim.Optimizer
    if optimizer == "sgd":
        reference = torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True)
    else:
        reference = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.999))
    for factor in (1.0, 0.5):  # half a cosine over two steps
        for group in reference.param_groups:
            group["lr"] = 0.1 * factor
        reference.zero_grad()
        loss = functional.cross_entropy(other((data.train.x - 0.1) / 0.9), data.train.y)
        loss.backward()  # type: ignore[no-untyped-call]
        reference.step()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-5, atol=1e-7)


def test_the_loss_told_is_the_mean_over_all_images() -> None:
    """At a rate that changes nothing: the mean cross-entropy, the short last batch included."""
    data = toy_data(train=50)
    module = linear()
    history = fit(module, Training(epochs=1, lr=1e-12, batch_size=16), Context(data), "train")
    logits = linear()((data.train.x - 0.1) / 0.9).detach().double()
    by_hand = -torch.log_softmax(logits, 1)[torch.arange(50), data.train.y].mean()
    assert history[0].loss == pytest.approx(float(by_hand), rel=1e-6)
    assert history[0].validation == evaluate(module, data, data.validation)


# ---- determinism -------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "flip-crop", "affine", "elastic"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(augment: str) -> None:
    training = Training(epochs=2, lr=0.05, batch_size=16, augment=augment)
    states = []
    for seed, noise in ((4, 1), (4, 99), (5, 1)):
        module = richer()
        torch.manual_seed(noise)  # whatever was drawn before must not matter
        fit(module, training, Context(toy_data(), seed=seed), "train")
        states.append(state_of(module))
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_the_order_of_the_images_follows_the_seed() -> None:
    """In a network that draws no random number itself."""
    states = []
    for seed in (4, 4, 5):
        module = linear()
        fit(module, Training(epochs=1, lr=0.1, batch_size=8), Context(toy_data(), seed=seed), "")
        states.append(state_of(module))
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_a_network_given_in_evaluation_mode_is_trained_all_the_same() -> None:
    one, other = richer().train(), richer().eval()
    for module in (one, other):
        fit(module, Training(epochs=2, lr=0.05, batch_size=16), Context(toy_data()), "train")
    assert equal(state_of(one), state_of(other))


def test_automatic_augmentation_is_the_data_sets_own() -> None:
    def trained(augment: str, own: str) -> State:
        module = richer()
        training = Training(epochs=1, lr=0.05, batch_size=16, augment=augment)
        fit(module, training, Context(toy_data(augment=own)), "train")
        return state_of(module)

    assert equal(trained("auto", "flip-crop"), trained("flip-crop", "none"))
    assert equal(trained("none", "flip-crop"), trained("auto", "none"))
    assert not equal(trained("auto", "flip-crop"), trained("auto", "none"))


# ---- the last epoch ----------------------------------------------------------------------------


def test_the_last_epoch_is_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the best one: validation is made to look worse from epoch to epoch."""
    states: list[State] = []

    def watch(module: nn.Module, *_: Any, **__: Any) -> float:
        states.append(state_of(module))
        return 1 / len(states)

    monkeypatch.setattr(fit_module, "evaluate", watch)
    module = richer()
    history = fit(module, Training(epochs=3, lr=0.05, batch_size=16), Context(toy_data()), "train")
    assert [epoch.validation for epoch in history] == [1, 1 / 2, 1 / 3]
    assert equal(state_of(module), states[-1])
    assert not equal(states[0], states[-1])


def test_training_learns() -> None:
    data = toy_data(train=90)
    module = richer()
    before = evaluate(module, data, data.validation)
    history = fit(module, Training(epochs=15, lr=0.05, batch_size=16), Context(data), "train")
    assert history[-1].validation > max(before, 0.8)
    assert history[-1].loss < history[0].loss / 2


def test_without_data_or_epochs_nothing_happens() -> None:
    module = richer()
    before = state_of(module)
    assert fit(module, Training(), Context(), "train") == []
    assert fit(module, Training(epochs=0), Context(toy_data()), "train") == []
    assert equal(state_of(module), before)


def test_parameters_that_are_frozen_stay() -> None:
    module = richer()
    module.get_parameter("0.weight").requires_grad_(False)
    before = state_of(module)
    fit(module, Training(epochs=1, lr=0.1, batch_size=16), Context(toy_data()), "train")
    assert torch.equal(module.get_parameter("0.weight"), before["0.weight"])
    assert not torch.equal(module.get_parameter("5.weight"), before["5.weight"])


@pytest.mark.parametrize(("bias", "loss"), [(math.nan, "nan"), (3e38, "inf")])
def test_a_loss_that_is_not_finite_ends_the_stage_with_a_hint(bias: float, loss: str) -> None:
    """A score of 3e38 for one class is finite; the sum of such losses over a batch is not."""
    module = linear()
    module.get_parameter("1.bias").requires_grad_(False)[0] = bias
    training = Training(epochs=3, lr=0.25, batch_size=50)
    with pytest.raises(
        StageError,
        match=rf"^retrain: the loss is {loss} in epoch 1.*lower learning rate than 0\.25",
    ):
        fit(module, training, Context(toy_data()), "retrain")


def test_a_rate_that_makes_the_loss_run_away_ends_the_stage() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 50), nn.ReLU(), nn.Linear(50, 3))
    with pytest.raises(StageError, match=r"the loss is (nan|inf)"):
        fit(module, Training(epochs=20, lr=1000, batch_size=8), Context(toy_data()), "train")


def test_progress_counts_every_step() -> None:
    class Listener(Progress):
        def __init__(self) -> None:
            self.total, self.notes = 0, list[str]()

        @contextmanager
        def task(self, title: str, total: int) -> Iterator[Step]:
            assert title == "train"
            self.total = total
            yield lambda note="": self.notes.append(note)

    listener = Listener()
    training = Training(epochs=2, batch_size=16)
    history = fit(linear(), training, Context(toy_data(50), progress=listener), "train")
    assert listener.total == len(listener.notes) == 8
    assert listener.notes[0] == "epoch 1/2"
    assert listener.notes[4].startswith(f"epoch 2/2  loss {history[0].loss:.4f}")


def test_a_row_has_nothing_that_json_cannot_hold() -> None:
    row = Epoch(1, 0.5, math.nan, 0.1).row()
    assert row == {"epoch": 1, "loss": 0.5, "validation": None, "lr": 0.1}


# ---- evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 20, 500])
def test_accuracy_is_the_fraction_of_right_answers(batch_size: int) -> None:
    data = toy_data()
    module = richer().eval()
    with torch.no_grad():
        scores = module((data.validation.x - 0.1) / 0.9).numpy()
    right = sum(int(np.argmax(s)) == int(y) for s, y in zip(scores, data.validation.y, strict=True))
    assert 0 < right < 20
    assert evaluate(module, data, data.validation, batch_size) == right / 20


@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_is_in_evaluation_mode_and_puts_the_mode_back(mode: bool) -> None:
    data = toy_data()
    module = richer().train(mode)
    expected = evaluate(copy.deepcopy(module).eval(), data, data.validation)
    before = state_of(module)
    assert evaluate(module, data, data.validation) == expected
    assert module.training is mode
    assert all(child.training is mode for child in module.modules())
    assert equal(state_of(module), before), "running statistics must not move"


def test_an_empty_split_has_no_accuracy() -> None:
    data = toy_data(validation=1)
    empty = Split(data.validation.x[:0], data.validation.y[:0])
    assert math.isnan(evaluate(linear(), data, empty))


def test_training_without_a_validation_split() -> None:
    data = toy_data()
    empty = Split(data.validation.x[:0], data.validation.y[:0])
    data = Data("toy", data.train, empty, empty, 3, (0.1,), (0.9,), "none", 0.0, "")
    history = fit(linear(), Training(epochs=1, batch_size=16), Context(data), "train")
    assert history[0].row()["validation"] is None


# ---- does the network fit the data? ------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 4])
def test_a_network_with_an_output_for_each_class_fits(classes: int) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).train()
    check_fit(module, torch.zeros(1, 1, 4, 4), toy_data())
    assert module.training


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), r"\(1, 2\)"),
        (nn.Linear(4, 3), r"\(1, 1, 4, 3\)"),
        (nn.LSTM(4, 3, batch_first=True), "tuple"),
    ],
)
def test_a_network_that_does_not_fit_the_classes_is_refused(module: nn.Module, shape: str) -> None:
    example = torch.zeros(1, 4, 4) if isinstance(module, nn.LSTM) else torch.zeros(1, 1, 4, 4)
    with pytest.raises(StageError, match=rf"gives {shape} for one image, but toy has 3 classes"):
        check_fit(module, example, toy_data())
