"""Schedules: sparsities by the formulas, weights that return, movement, and equal bytes."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.layers import (
    behind_mask,
    change_mask,
    compressible_layers,
    mask_layer,
    mask_of,
    scores_of,
)
from compressor.network import Context, Network
from compressor.parametrizations import Masked, Scored, Spliced
from compressor.pruning import prune
from compressor.pruning.goals import Sparsities, goal_of
from compressor.pruning.ramps import Ramp, cubic
from compressor.recipe import Recipe
from compressor.settings import Prune, Training
from compressor.training import fit as fitting
from compressor.training.fit import fit
from tests.test_pruning import network, toy_data, weights

RETRAIN = Training(epochs=4, lr=0.05, batch_size=8, weight_decay=0.0, warmup=0.0)  # 16 steps
SCHEDULES: dict[str, dict[str, Any]] = {
    "rounds": {"rounds": 3},
    "gradual": {"every": 3},
    "splicing": {"every": 3},
    "movement": {"every": 3},
}


def masks(module: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    found = {n: mask_of(layer) for n, layer in compressible_layers(module).items()}
    return {name: mask.numpy().copy() for name, mask in found.items() if mask is not None}


# ---- exact sparsities --------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("scope", ["layer", "global", "erk", "lamp"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_every_schedule_ends_exactly_at_its_sparsity(
    schedule: str, scope: str, sparsity: float
) -> None:
    if (schedule, scope) == ("movement", "lamp"):
        pytest.skip("refused")
    net = network()
    settings = Prune(
        sparsity={"conv*": sparsity},
        scope=scope,  # type: ignore[arg-type]
        schedule=schedule,  # type: ignore[arg-type]
        retrain=RETRAIN,
        **SCHEDULES[schedule],
    )
    report = prune(net, settings, Context(toy_data()))
    zeros = {name: int((weight == 0).sum()) for name, weight in weights(net.module).items()}
    sizes = {"conv1": 36, "conv2": 216}
    assert zeros.pop("fc") == 0
    if scope == "layer":
        assert zeros == {name: round(sparsity * size) for name, size in sizes.items()}
    else:
        assert sum(zeros.values()) == round(sparsity * sum(sizes.values()))
    assert report.history[-1]["sparsity"] == pytest.approx(sum(zeros.values()) / 252, abs=1e-12)
    assert all(row["target"] == sparsity for row in report.layers)
    kinds = [type(layer.module.parametrizations.weight[0]) for layer in pruned(net)]
    assert kinds == [Masked, Masked], "nothing but plain masks is left"


def pruned(net: Network) -> list[Any]:
    return [
        layer for layer in compressible_layers(net.module).values() if mask_of(layer) is not None
    ]


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.9, 0.99])
def test_rounds_prune_the_same_part_of_what_is_left(sparsity: float, rounds: int) -> None:
    """(1 - x)^n = 1 - s: each round leaves the same part of the last one, and the last 1 - s."""
    goal = Sparsities({"a": sparsity})
    left = [1.0] + [1 - goal.in_round(step + 1, rounds).values["a"] for step in range(rounds)]
    x = 1 - (1 - sparsity) ** (1 / rounds)
    for earlier, later in pairwise(left):
        assert later / earlier == pytest.approx(1 - x)
    for weights_in_all in (1000, 266_200, 8_388_608):
        scores = {"a": np.arange(weights_in_all, dtype=np.float32)}
        last = goal.in_round(rounds, rounds).masks(scores)["a"]
        assert int((~last).sum()) == round(sparsity * weights_in_all)


def test_rounds_report_the_sparsity_of_each() -> None:
    settings = Prune(sparsity=0.9, rounds=3, retrain=Training(epochs=1, batch_size=16))
    report = prune(network(), settings, Context(toy_data()))
    sizes = (36, 216, 18)
    for step, row in enumerate(report.history, 1):
        wanted = 1 - 0.1 ** (step / 3)
        zeros = sum(round(wanted * size) for size in sizes)
        assert row["sparsity"] == pytest.approx(zeros / sum(sizes))


def test_weights_that_are_zero_already_count() -> None:
    net = network()
    with torch.no_grad():
        net.module.get_parameter("conv2.weight").view(-1)[:50] = 0
        net.module.get_parameter("fc.weight").view(-1)[:15] = 0
    prune(net, Prune(sparsity=0.5), Context())
    after = weights(net.module)
    assert int((after["conv2"] == 0).sum()) == 108
    assert not after["conv2"].ravel()[:50].any()
    assert not masks(net.module)["fc"].ravel()[:15].any(), "15 of 18 stay pruned, though 9 would do"


def test_tied_weights_are_pruned_to_the_count() -> None:
    net = network()
    with torch.no_grad():
        net.module.get_parameter("conv2.weight").fill_(0.5)
    prune(net, Prune(sparsity={"conv2": 0.75}), Context())
    kept = masks(net.module)["conv2"].ravel()
    assert kept.tolist() == [False] * 162 + [True] * 54


# ---- gradual -----------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0, 0.1, 0.25, 0.5, 0.9, 1])
def test_the_ramp_is_zhu_and_guptas_cubic(t: float) -> None:
    """s_t = s_f + (s_i - s_f)(1 - (t - t_0) / (n dt))^3 with s_i = 0, t_0 = 0; in fractions."""
    final, exact = Fraction(9, 10), Fraction(t)
    s_t = final + (0 - final) * (1 - exact) ** 3
    assert Sparsities({"a": 0.9}).part(cubic(t)).values["a"] == pytest.approx(float(s_t))


def test_gradual_masks_follow_the_cubic_and_then_stay() -> None:
    net = network()
    layers = compressible_layers(net.module)
    settings = Prune(sparsity={"conv2": 0.9}, schedule="gradual", every=10, retrain=RETRAIN)
    ramp = Ramp(layers, goal_of(layers, settings), settings)
    assert masks(net.module)["conv2"].all()
    seen, steps = {}, 100
    for done in range(1, steps + 1):
        ramp(done, steps)
        seen[done] = int((~masks(net.module)["conv2"]).sum())
    for done, zeros in seen.items():
        t = min(1.0, done // 10 * 10 / 50)  # the ramp is the first half, in tens of steps
        assert zeros == round(0.9 * (1 - (1 - t) ** 3) * 216)
    assert ramp.sparsities == pytest.approx({e: seen[25 * e] / 216 for e in (1, 2, 3, 4)})


def test_what_gradual_pruning_takes_does_not_return() -> None:
    net, taken = network(), []
    layers = compressible_layers(net.module)
    settings = Prune(sparsity=0.8, schedule="gradual", every=1, retrain=RETRAIN)
    ramp = Ramp(layers, goal_of(layers, settings), settings)

    def watch(done: int, steps: int) -> None:
        ramp(done, steps)
        taken.append(~masks(net.module)["conv2"])

    fit(net.module, RETRAIN, Context(toy_data()), "test", watch)
    assert len(taken) == 16
    for earlier, later in pairwise(taken):
        assert (later | ~earlier).all()


def test_a_sensitivity_ramps_its_threshold() -> None:
    net = network()
    report = prune(
        net, Prune(0.9, schedule="gradual", every=1, retrain=RETRAIN), Context(toy_data())
    )
    sparsities = [row["sparsity"] for row in report.history]
    assert sparsities == sorted(sparsities)
    assert 0.3 < sparsities[-1] < 0.9
    assert "threshold" in report.layers[0]


@pytest.mark.parametrize("schedule", ["gradual", "splicing"])
def test_without_data_a_ramp_prunes_at_once(schedule: Any) -> None:
    one, other = network(), network()
    other.module.load_state_dict(one.module.state_dict())
    prune(one, Prune(sparsity=0.7), Context())
    prune(other, Prune(sparsity=0.7, schedule=schedule), Context())
    for name, weight in weights(one.module).items():
        np.testing.assert_array_equal(weights(other.module)[name], weight)


# ---- splicing ----------------------------------------------------------------------------------


def fc(weight: list[float], kind: type[Masked], mask: list[bool]) -> Any:
    module = nn.Sequential(nn.Linear(len(weight), 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([weight]))
    layer = compressible_layers(module)["0"]
    mask_layer(layer, torch.tensor([mask]), kind)
    # What the mask hides has been lost: put it back.
    with torch.no_grad():
        behind_mask(layer).copy_(torch.tensor([weight]))
    return module, layer


def test_the_gradient_passes_straight_through_a_spliced_mask() -> None:
    """y = 2 w1 + 3 w2 + 5 w3 with w2 pruned: the value is 2 w1 + 5 w3, the gradient (2, 3, 5)."""
    module, layer = fc([0.5, -7.0, 0.25], Spliced, [True, False, True])
    y = module(torch.tensor([[2.0, 3.0, 5.0]])).sum()
    assert y.item() == 2 * 0.5 + 5 * 0.25
    assert layer.weight.tolist() == [[0.5, 0.0, 0.25]]
    y.backward()
    original = module[0].parametrizations.weight.original
    assert original.grad.tolist() == [[2.0, 3.0, 5.0]]


def test_a_plain_mask_lets_no_gradient_through() -> None:
    module, _ = fc([0.5, -7.0, 0.25], Masked, [True, False, True])
    module(torch.tensor([[2.0, 3.0, 5.0]])).sum().backward()
    assert module[0].parametrizations.weight.original.grad.tolist() == [[2.0, 0.0, 5.0]]


def test_splicing_revives_a_weight_and_only_past_the_threshold() -> None:
    """Hysteresis 0.25: a pruned weight displaces one only from 1.25 / 0.75 times its size on."""
    _, layer = fc([1.0, 0.9, 0.1], Spliced, [True, False, False])
    settings = Prune(sparsity=2 / 3, schedule="splicing", every=1, ramp=0, hysteresis=0.25)
    ramp = Ramp({"0": layer}, Sparsities({"0": 2 / 3}), settings)
    for magnitude, first in ((1.6, True), (1.7, False)):
        with torch.no_grad():
            behind_mask(layer).copy_(torch.tensor([[1.0, -magnitude, 0.1]]))
        change_mask(layer, torch.tensor([[True, False, False]]))
        ramp(1, 100)
        kept = mask_of(layer)
        assert kept is not None
        assert kept.tolist() == [[first, not first, False]]
    assert layer.weight.tolist()[0] == [0.0, pytest.approx(-1.7), 0.0]


def test_splicing_by_sensitivity_has_the_papers_two_thresholds() -> None:
    """Guo et al. 2016, equation 3: under a = (1 - h) t prune, from b = (1 + h) t on take back."""
    values = [0.74, 0.76, 1.2, 1.24, 1.26, 3.0]
    kept = [True, True, True, False, False, True]
    _, layer = fc(values, Spliced, kept)
    settings = Prune(1.0, schedule="splicing", every=1, ramp=0, hysteresis=0.25)
    goal = goal_of({"0": layer}, settings)
    ramp = Ramp({"0": layer}, goal, settings)
    with torch.no_grad():
        behind_mask(layer).copy_(torch.tensor([values]))
    change_mask(layer, torch.tensor([kept]))
    ramp.goal = type(goal)({"0": 1.0}, {"0": 1.0})  # type: ignore[call-arg]
    ramp(1, 100)
    found = mask_of(layer)
    assert found is not None
    assert found.tolist() == [[False, True, True, False, True, True]]


def test_splicing_returns_weights_in_training_and_freezes_at_the_end() -> None:
    net, seen = network(), []
    layers = compressible_layers(net.module)
    settings = Prune(
        **{"sparsity": 0.7, "schedule": "splicing", "every": 1, "ramp": 0.25, "hysteresis": 0.0},
        retrain=RETRAIN,
    )
    ramp = Ramp(layers, goal_of(layers, settings), settings)

    def watch(done: int, steps: int) -> None:
        ramp(done, steps)
        seen.append(masks(net.module))

    training = Training(epochs=4, lr=0.5, batch_size=8, warmup=0.0)
    fit(net.module, training, Context(toy_data()), "test", watch)
    returned = sum(
        int((later[name] & ~earlier[name]).sum())
        for earlier, later in pairwise(seen)
        for name in earlier
    )
    assert returned > 0
    for late in seen[12:]:  # the last quarter of 16 steps
        for name, mask in seen[11].items():
            np.testing.assert_array_equal(late[name], mask)


# ---- movement ----------------------------------------------------------------------------------


def test_scores_sum_up_minus_gradient_times_weight() -> None:
    """Also of pruned weights, while the weight itself learns only where the mask holds."""
    module, layer = fc([0.5, -7.0, 0.25], Scored, [True, False, True])
    expected = torch.zeros(1, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for x in ([2.0, 3.0, 5.0], [-1.0, 4.0, 0.5]):
        before = behind_mask(layer).clone()
        expected -= 0.1 * torch.tensor([x]) * before  # the gradient of y is x
        optimizer.zero_grad()
        module(torch.tensor([x])).sum().backward()
        optimizer.step()
        moved = before - 0.1 * torch.tensor([x]) * torch.tensor([[1.0, 0.0, 1.0]])
        torch.testing.assert_close(behind_mask(layer), moved)
    torch.testing.assert_close(scores_of(layer), expected)
    assert layer.weight[0, 1] == 0


def test_movement_keeps_what_moves_away_from_zero_not_what_is_large() -> None:
    """Two weights: the large one is driven to zero, the small one away from it."""
    module, layer = fc([2.0, 0.5], Scored, [True, True])
    settings = Prune(sparsity=0.5, schedule="movement", every=1, ramp=0.5, freeze=0.1)
    ramp = Ramp({"0": layer}, Sparsities({"0": 0.5}), settings)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for done in range(1, 11):
        optimizer.zero_grad()
        module(torch.tensor([[1.0, -1.0]])).sum().backward()  # dy/dw = (1, -1): 2 sinks, 0.5 rises
        optimizer.step()
        ramp(done, 10)
    assert abs(behind_mask(layer)[0, 0]) > abs(behind_mask(layer)[0, 1])
    kept = mask_of(layer)
    assert kept is not None
    assert kept.tolist() == [[False, True]]


# ---- the learning rate -------------------------------------------------------------------------


def test_rewinding_repeats_the_tail_of_the_schedule() -> None:
    """Three of twelve epochs, ten steps each: the rates of steps 90 to 119 of the whole."""
    whole = Training(epochs=12, lr=0.1, warmup=0.1)
    tail = Training(epochs=3, lr=0.1, warmup=0.1, rewind=12)
    rates = [fitting._schedule(step, 120, whole) for step in range(120)]
    found = [fitting._schedule(step, 30, tail) for step in range(30)]
    assert found == pytest.approx(rates[90:])
    assert found[0] == pytest.approx(0.5 * (1 + math.cos(math.pi * 78 / 108)))


def test_rewinding_to_the_beginning_is_the_schedule_itself() -> None:
    one, other = Training(epochs=3), Training(epochs=3, rewind=3)
    for step in range(30):
        assert fitting._schedule(step, 30, other) == fitting._schedule(step, 30, one)


def test_steps_are_told_one_by_one() -> None:
    told: list[tuple[int, int]] = []
    fit(network().module, RETRAIN, Context(toy_data()), "t", lambda *pair: told.append(pair))
    assert told == [(done, 16) for done in range(1, 17)]


# ---- whole runs --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_same_recipe_gives_the_same_bytes_and_resuming_does(
    schedule: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrain = Training(epochs=2, lr=0.02)
    settings = Prune(sparsity=0.8, scope="erk", schedule=schedule, retrain=retrain)
    recipe = Recipe(prune=settings, share=compressor.Share(3, finetune=retrain), threads=1)
    torch.manual_seed(1)
    state = Digits().state_dict()

    def run(folder: str, **options: Any) -> bytes:
        module = Digits()
        module.load_state_dict(state)
        output = tmp_path / folder
        compressor.compress(module, recipe, data="digits", output=output, **options)
        return next(output.glob("*.dcz")).read_bytes()

    whole = run("one")
    assert run("two") == whole
    from compressor import pipeline

    with monkeypatch.context() as patch:

        def fails(*_: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr(pipeline, "share", fails)
        with pytest.raises(KeyboardInterrupt):
            run("three")
    assert run("three", resume=True) == whole


class Digits(nn.Module):
    """For the digits' (1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.fc = nn.Linear(6 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).relu().flatten(1))
        return logits
