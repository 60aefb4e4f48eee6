"""Distillation: the loss by formula, the gradient by Hinton's, and a teacher that stays itself."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import loading, pipeline, runtime_files
from compressor.errors import StageError, UsageError
from compressor.network import Context
from compressor.progress import Progress
from compressor.recipe import Recipe
from compressor.settings import DISTILL, Calibrate, Prune, Share, Training
from compressor.training import data as datasets
from compressor.training.data import Data, Split
from compressor.training.fit import fit
from compressor.training.losses import distillation, frozen, loss_of
from tests.conftest import Compress, timed


def images(count: int = 48) -> Data:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(count) % 3
    x = torch.randn(count, 1, 4, 4, generator=generator)
    x[torch.arange(count), 0, y] += 1
    split = Split(x, y)
    return Data("rows", split, split, split, 3, (0.0,), (1.0,), "none", 0.0, "")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


def states(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


# ---- the loss ----------------------------------------------------------------------------------


def softmax(z: Any) -> Any:
    power = np.exp(z - z.max(1, keepdims=True))
    return power / power.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("weight", [0.25, 0.9, 1.0])
def test_the_loss_is_the_formula(weight: float, temperature: float) -> None:
    """(1 - a) CE + a T^2 sum p log(p / q), in NumPy and float64."""
    draw = np.random.default_rng(0)
    z, v, y = draw.normal(0, 3, (7, 5)), draw.normal(0, 3, (7, 5)), draw.integers(0, 5, 7)
    p, q = softmax(v / temperature), softmax(z / temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    hard = -np.log(softmax(z)[np.arange(7), y]).mean()
    loss = loss_of(Training(distill=weight, temperature=temperature), lambda x: x)  # type: ignore[arg-type]
    found = loss(torch.from_numpy(z), torch.from_numpy(v), torch.from_numpy(y))
    assert float(found) == pytest.approx((1 - weight) * hard + weight * soft, rel=1e-9)


def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn() -> None:
    """Logits that differ by a constant are the same answer."""
    z = torch.randn(6, 4, dtype=torch.float64).requires_grad_()
    loss = distillation(z, z.detach() + 7, 3.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert abs(float(loss.detach())) < 1e-12
    assert z.grad is not None
    assert float(z.grad.abs().max()) < 1e-12


def test_the_gradient_at_high_temperature_is_that_of_matching_logits() -> None:
    """Hinton et al., equation 4: (z - v) / N, both of zero mean, here with T^2 and B images."""
    z, v = torch.randn(2, 6, 4, dtype=torch.float64)
    z, v = z - z.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    z.requires_grad_()
    distillation(z, v, 1000.0).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(z.grad, (z.detach() - v) / 4 / 6, rtol=0, atol=1e-3)


# ---- training ----------------------------------------------------------------------------------

SHORT = Training(epochs=3, lr=0.05, batch_size=16)


def distilled(weight: float = 0.9, **settings: Any) -> Training:
    return Training(epochs=3, lr=0.05, batch_size=16, distill=weight, **settings)


def test_without_weight_a_teacher_changes_nothing() -> None:
    one, other = network(1), network(1)
    fit(one, SHORT, Context(images()), "train")
    fit(other, SHORT, Context(images(), teacher=frozen(network(2))), "train")
    assert equal(states(one), states(other))


def test_the_student_comes_to_answer_like_its_teacher() -> None:
    """Whose answers here have nothing to do with the labels."""
    data = images()
    teacher = frozen(network(2))
    with torch.no_grad():
        wanted = torch.log_softmax(teacher(data.train.x), 1)

    def away(module: nn.Module) -> float:
        with torch.no_grad():
            found = torch.log_softmax(module.eval()(data.train.x), 1)
        return float((wanted.exp() * (wanted - found)).sum(1).mean())

    student, alone = network(1), network(1)
    before = away(student)
    training = Training(epochs=30, lr=0.05, batch_size=16, distill=1.0)
    fit(student, training, Context(data, teacher=teacher), "train")
    fit(alone, Training(epochs=30, lr=0.05, batch_size=16), Context(data), "train")
    assert away(student) < before / 5
    assert away(student) < away(alone) / 5


def test_the_teacher_stays_as_it_was() -> None:
    original = network(2).train()
    teacher = frozen(original)
    before = states(teacher)
    fit(network(1), distilled(), Context(images(), teacher=teacher), "train")
    assert equal(before, states(teacher)), "also its running statistics"
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(child.training for child in teacher.modules())
    assert original.training
    assert all(parameter.requires_grad for parameter in original.parameters())
    assert all(
        one.data_ptr() != other.data_ptr()
        for one, other in zip(teacher.parameters(), original.parameters(), strict=True)
    )


def test_the_same_teacher_gives_the_same_bits_and_temperature_counts() -> None:
    teacher = frozen(network(2))
    found = []
    for training in (distilled(), distilled(), distilled(temperature=1.0), distilled(0.5)):
        student = network(1)
        fit(student, training, Context(images(), teacher=copy.deepcopy(teacher)), "train")
        found.append(states(student))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])
    assert not equal(found[0], found[3])


def test_the_teacher_sees_the_students_own_images() -> None:
    """After augmentation, in the same order."""

    class Seen(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.inputs = inner, list[Tensor]()

        def forward(self, x: Tensor) -> Any:
            one = len(x) == 1  # tried for the layout that it takes
            if not one and (self.inner.training or not torch.is_grad_enabled()):
                self.inputs.append(x.clone())
            return self.inner(x)

    student, teacher = Seen(network(1)), Seen(network(2)).eval()
    data = images()
    none = Split(data.train.x[:0], data.train.y[:0])
    data = Data("rows", data.train, none, none, 3, (0.0,), (1.0,), "flip-crop", 0.0, "")
    fit(student, distilled(), Context(data, teacher=teacher), "train")
    assert len(student.inputs) == len(teacher.inputs) == 9
    for own, other in zip(student.inputs, teacher.inputs, strict=True):
        assert torch.equal(own, other)


def test_distilling_without_a_teacher_is_refused_before_anything_changes() -> None:
    module = network(1)
    before = states(module)
    with pytest.raises(StageError, match=r"distill is 0\.9, but there is no teacher"):
        fit(module, distilled(), Context(images()), "train")
    assert equal(before, states(module))


# ---- recipe, pipeline, command line ------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"distill": 1.1}, {"distill": -0.1}, {"temperature": 0}])
def test_settings_that_cannot_be(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        Training(**setting)


def test_a_recipe_knows_its_trainings() -> None:
    once = Training(epochs=1)
    recipe = Recipe(prune=Prune(retrain=once), share=Share(finetune=SHORT))
    shared = {"share.finetune": SHORT, "share.train": Share().train}
    assert recipe.trainings == {"prune.retrain": once} | shared
    assert Recipe(share=Share(finetune=SHORT)).trainings == shared
    assert Recipe(calibrate=Calibrate()).trainings == {}


class Killed(BaseException):
    """Stands for a process that is gone."""


Job = Callable[..., pipeline.Run]
ONCE = Training(epochs=1, batch_size=64, distill=0.9)
RECIPE = Recipe(prune=Prune(0.5, retrain=ONCE), share=Share(4, finetune=ONCE), threads=1)
ARCH = """
import torch

def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(4 * 36, 10),
    )

build.input_shape = (1, 8, 8)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    def measured(models: dict[str, bytes], shape: tuple[int, ...], **_: Any) -> dict[str, Any]:
        return timed(**dict.fromkeys(models, 1.0))

    monkeypatch.setattr(runtime_files, "latency", measured)
    (tmp_path / "arch.py").write_text(ARCH)
    arch = f"{tmp_path / 'arch.py'}:build"
    module, _ = loading.build(arch)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    digits = datasets.load("digits", input_shape=(1, 8, 8))

    def make(folder: str, recipe: Recipe = RECIPE, data: Data | None = digits) -> pipeline.Run:
        network = loading.load(tmp_path / "net.pt", arch=arch)
        return pipeline.Run(network, recipe, data, tmp_path / folder, Progress())

    return make


def test_every_stages_teacher_is_the_dense_network_as_loaded(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job("out")
    loaded = states(run.network.module)
    seen: list[dict[str, Tensor]] = []
    for name in ("prune", "share"):
        stage = getattr(pipeline, name)

        def watch(*args: Any, stage: Any = stage) -> Any:
            context = args[2]
            assert context.teacher is not None
            report = stage(*args)
            seen.append(states(context.teacher))
            return report

        monkeypatch.setattr(pipeline, name, watch)
    run.execute()
    assert len(seen) == 2
    assert equal(loaded, seen[0])
    assert equal(loaded, seen[1])


def test_a_run_that_is_resumed_has_the_same_teacher_and_gives_the_same_bytes(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Killed

    names = ("net.dcz", "net.onnx", "recipe.toml")
    job("whole").execute()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "share", stop)
        with pytest.raises(Killed):
            job("killed").execute()
    resumed = job("killed")
    loaded = states(resumed.network.module)
    resumed.execute(resume=True)
    assert resumed.context.teacher is not None
    assert equal(loaded, states(resumed.context.teacher))
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_distilling_changes_the_outcome_and_copies_no_network_where_nobody_does(job: Job) -> None:
    plain = Training(epochs=1, batch_size=64)
    recipe = Recipe(prune=Prune(0.5, retrain=plain), threads=1)
    without, within = job("a", recipe), job("b", recipe.with_settings({"prune.retrain.distill": 1}))
    blind = job("c", RECIPE, None)
    for run in (without, within, blind):
        run.execute()
    assert without.context.teacher is None
    assert blind.context.teacher is None, "nothing is trained without data"
    assert not equal(states(without.network.module), states(within.network.module))


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ((), (0.0, 0.0, 0.0)),
        (("--distill",), (DISTILL, DISTILL, DISTILL)),
        (("--distill", "0.5"), (0.5, 0.5, 0.5)),
        (("--distill", "0.5", "--set", "share.finetune.distill=0.25"), (0.5, 0.25, 0.5)),
    ],
)
def test_the_flag_reaches_every_training(
    compress: Compress, shelf: Path, here: Path, words: tuple[str, ...], weights: tuple[float, ...]
) -> None:
    both = ("--prune-sensitivity", "0.5", "--quantize", "5bit", "--dry-run", "--json")
    done = compress(shelf / "net.pt", *both, *words)
    assert done.code == 0, done.err
    trainings = Recipe.from_toml(json.loads(done.out)["recipe"]).trainings
    assert tuple(each.distill for each in trainings.values()) == weights


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--quantize", "auto", "--distill"), "--distill has no effect"),
        (("--quantize", "5bit", "--distill", "2"), "2.0 is not in the range 0<=x<=1"),
    ],
)
def test_flags_that_cannot_be(
    compress: Compress, shelf: Path, here: Path, words: tuple[str, ...], says: str
) -> None:
    done = compress(shelf / "net.pt", *words, "--dry-run")
    assert done.code == 2
    assert says in done.err
