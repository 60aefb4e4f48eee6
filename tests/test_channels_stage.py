"""Choosing channels: scores, widths, rounds, targets; the stage in a run and from a shell."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import compressor
from compressor import loading
from compressor.channels.allocation import threshold, to_target, uniform, worth
from compressor.channels.cost import Macs
from compressor.channels.cutting import Kept, cut
from compressor.channels.dependencies import Dependencies, Group
from compressor.channels.importance import importance, normalised
from compressor.channels.limits import Limits
from compressor.channels.plan import Plan, preview
from compressor.channels.widths import Curve, Profile, measure, shipped, step_of
from compressor.errors import ExportError, StageError, UsageError
from compressor.network import Context, Network
from compressor.recipe import Recipe
from compressor.reporting.measure import layer_macs
from compressor.settings import Channels, Criterion, Prune, Share, Training
from tests.conftest import timed
from tests.test_cli import Compress  # noqa: F401  (the fixture's type)


class Small(nn.Module):
    """conv - norm - conv (depthwise) - conv - linear, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.second = nn.Conv2d(16, 24, 1)
        self.side = nn.Conv2d(3, 24, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(torch.relu(self.norm(self.first(x))))
        z = torch.relu(self.second(y) + self.side(x))
        return self.head(z.mean((2, 3)))


EXAMPLE = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def network(module: nn.Module) -> Network:
    return Network(module, EXAMPLE, "small", "small")


def group(dependencies: Dependencies, name: str) -> Group:
    return next(each for each in dependencies.groups if each.name == name)


# ---- scores --------------------------------------------------------------------------------------


def scores_of(module: Small, criterion: Criterion, name: str) -> Any:
    dependencies = Dependencies(module, EXAMPLE)
    found = importance(dependencies, module, criterion)
    return found[dependencies.axes[f"{name}.weight", 0]]


def test_l2_and_l1_sum_all_that_stands_or_falls_with_a_channel(small: Small) -> None:
    made, depth, read = (each.weight.detach() for each in (small.first, small.depth, small.second))
    parts = (made.flatten(1), depth.flatten(1), read.movedim(1, 0).flatten(1))
    squares = sum(part.double().square().sum(1) for part in parts)
    magnitudes = sum(part.double().abs().sum(1) for part in parts)
    np.testing.assert_allclose(scores_of(small, "l2", "first"), squares)
    np.testing.assert_allclose(scores_of(small, "l1", "first"), magnitudes)


def test_next_looks_at_readers_alone(small: Small) -> None:
    read = small.head.weight.detach().double().square().sum(0)
    np.testing.assert_allclose(scores_of(small, "next", "second"), read)


def test_gamma_is_the_norms_scale_and_says_nothing_where_there_is_none(small: Small) -> None:
    nn.init.normal_(small.norm.weight)
    scale = small.norm.weight.detach().double().abs()
    np.testing.assert_allclose(scores_of(small, "gamma", "first"), scale)
    assert np.isnan(scores_of(small, "gamma", "second")).all()


def test_taylor_is_the_squared_derivative_by_a_gate_on_the_channel(small: Small) -> None:
    """The gates stand in front of the only reader of this group."""
    torch.manual_seed(1)
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 5, (6,))
    gates = torch.ones(24, requires_grad=True)
    inner = small.depth(torch.relu(small.norm(small.first(x))))
    z = torch.relu(small.second(inner) + small.side(x)).mean((2, 3))
    loss = functional.cross_entropy(small.head(z * gates), y)
    (by_gate,) = torch.autograd.grad(loss, gates)
    dependencies = Dependencies(small, EXAMPLE)
    found = importance(dependencies, small, "taylor", batches=iter([(x, y)]))
    classes = dependencies.axes["second.weight", 0]
    np.testing.assert_allclose(found[classes], by_gate.double() ** 2, rtol=1e-3, atol=1e-12)


def test_taylor_needs_data(small: Small) -> None:
    with pytest.raises(StageError, match="--data"):
        importance(Dependencies(small, EXAMPLE), small, "taylor")


def test_random_scores_follow_the_seed(small: Small) -> None:
    dependencies = Dependencies(small, EXAMPLE)
    one, same = (importance(dependencies, small, "random", seed=3) for _ in range(2))
    other = importance(dependencies, small, "random", seed=4)
    assert (one == same).all()
    assert (one != other).any()


# ---- allocation ----------------------------------------------------------------------------------


def groups(*sizes: int, width: int = 1) -> list[Group]:
    ends = np.cumsum((1, *sizes))
    return [
        Group(((f"g{at}.weight", 0),), np.arange(ends[at], ends[at + 1]), width)
        for at in range(len(sizes))
    ]


def test_uniform_takes_the_least_of_each_group() -> None:
    scores = np.array([np.nan, 5, 1, 4, 2, 9, 9, 9, 0.5])
    two = groups(4, 4)
    gone = uniform(two, worth(two, scores, raw=False), [0.5, 0.25])
    assert gone.tolist() == [2, 4, 8]


def test_global_takes_the_fraction_of_all_channels() -> None:
    rng = np.random.default_rng(0)
    three = groups(40, 60, 100)
    scores = np.concatenate([[np.nan], rng.random(200)])
    gone = threshold(three, worth(three, scores, raw=True), 0.3)
    assert gone.tolist() == sorted((np.argsort(scores[1:])[:60] + 1).tolist())


def test_global_compares_multiples_of_the_groups_means() -> None:
    scores = np.array([np.nan, 1, 2, 3, 4, 100, 200, 300, 400], dtype=float)
    two = groups(4, 4)
    assert normalised(two, scores)[1:].tolist() == [0.4, 0.8, 1.2, 1.6] * 2
    assert threshold(two, worth(two, scores, raw=False), 0.25).tolist() == [1, 5]


def test_what_has_no_score_stays() -> None:
    scores = np.array([np.nan, 1, np.nan, 3, 4, 100, 200, 300, 400], dtype=float)
    two = groups(4, 4)
    worths = worth(two, scores, raw=True)
    assert uniform(two, worths, [0.5, 0.5]).tolist() == [5, 6]
    assert threshold(two, worths, 0.5).tolist() == [5, 6]
    everything = np.arange(5, 9)  # even where a width would rather have them go
    assert Limits([np.arange(1, 5)], 1, 3).met(everything, worths).tolist() == [5, 6, 7, 8]


# ---- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "width", "size", "wanted", "kept"),
    [
        (8, 1, 64, 37, 40),
        (8, 1, 64, 35, 32),
        (16, 1, 64, 37, 32),
        (16, 1, 24, 12, 16),
        (16, 1, 24, 23, 24),  # the whole width is nearer
        (16, 1, 12, 6, 12),  # no multiple fits
        (16, 4, 32, 13, 12),  # classes of four channels
        (16, 8, 32, 13, 14),  # of two as near the wider
        (1, 1, 64, 37, 37),
    ],
)
def test_widths_are_multiples(step: int, width: int, size: int, wanted: int, kept: int) -> None:
    axis = np.repeat(np.arange(1, size + 1), width)
    worths = np.arange(size + 1, dtype=float)
    gone = Limits([axis], 1, step).met(np.arange(1, size - wanted + 1), worths)
    assert gone.tolist() == list(range(1, size - kept + 1))  # the least worth
    assert kept == size or kept * width % step == 0


def test_a_layer_keeps_its_least_width() -> None:
    gone = Limits([np.arange(1, 11)], 3, 1).met(np.arange(1, 11), np.arange(11, dtype=float))
    assert gone.tolist() == list(range(1, 8))


def test_limits_hold_for_an_axis_whoever_shares_it() -> None:
    """One layer makes classes 1 to 16, another these and 17 to 32: a padded shortcut's."""
    small, large = np.arange(1, 17), np.arange(1, 33)
    worths = np.random.default_rng(0).random(33)
    limits = Limits([large, small, large], 3, 8)
    for ratio in np.linspace(0, 1, 20):
        wanted = np.sort(np.argsort(worths[1:], kind="stable")[: round(32 * ratio)] + 1)
        gone = limits.met(wanted, worths)
        left = [len(np.setdiff1d(axis, gone)) for axis in (small, large)]
        assert left[0] in (8, 16)
        assert left[1] % 8 == 0
        assert abs(left[1] - (32 - len(wanted))) <= 12
    # What is left of the first 16 may be all: no part of an axis has a least width of its own.
    assert set(np.setdiff1d(large, limits.met(large, worths))) < set(small)


def test_frozen_channels_count_in_a_width() -> None:
    axis = np.array([0, 0, 0, 0, *range(1, 13)])  # four that stay, twelve that may go
    worths = np.arange(13, dtype=float)
    assert len(Limits([axis], 3, 8).met(np.arange(1, 11), worths)) == 8  # 4 + 4
    assert len(Limits([axis], 3, 1).met(np.arange(1, 13), worths)) == 12  # four are enough


def test_bisection_finds_the_least_ratio() -> None:
    def remove(ratio: float) -> Any:
        return np.arange(round(1000 * ratio))

    before, gone = to_target(remove, lambda removed: (1 - len(removed) / 1000) ** 2, 0.25)
    assert len(gone) == 500
    assert len(before) == 499
    before, gone = to_target(remove, lambda removed: 1.0, 0.25)  # out of reach
    assert len(before) == len(gone) == 1000


# ---- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4])
def test_macs_left_are_those_of_the_small_network(small: Small, step: int) -> None:
    """Against the counter of torch, on the network really cut."""
    dense = layer_macs(small, EXAMPLE)[""]
    plan = Plan(network(small), Channels(0.5, round=step), Context())
    assert plan.macs.dense == dense
    removed = plan.removed(1, plan.macs.dense)
    made = cut(small, EXAMPLE, plan.dependencies, removed)
    assert plan.macs.left(removed) == pytest.approx(layer_macs(made.module, EXAMPLE)[""] / dense)
    assert made.proof.difference < 1e-12
    assert type(made.module) is Small


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_target_of_macs_is_met_and_no_more(small: Small, scope: Any) -> None:
    plan = Plan(network(small), Channels(target_macs=0.5, round=1, scope=scope), Context())
    left = plan.macs.left(plan.removed(1, plan.macs.dense))
    assert 0.4 < left <= 0.5


def test_rounds_multiply_to_the_ratio() -> None:
    """(1 - x)^n = 1 - s: three rounds to 0.7 remove 33 % each, not 23 %."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 1000, 1), nn.ReLU(), nn.Conv2d(1000, 4, 1), nn.Flatten())
    found = network(module.eval())
    settings = Channels(0.7, round=1, rounds=3, keep=1)
    left = 1000
    for step in (1, 2, 3):
        plan = Plan(found, settings, Context())
        removed = plan.removed(step, plan.macs.dense)
        left -= len(removed)
        found.module = cut(found.module, EXAMPLE, plan.dependencies, removed).module
        assert left == pytest.approx(1000 * 0.3 ** (step / 3), abs=2)


def test_frozen_sums_stay(small: Small) -> None:
    plan = Plan(network(small), Channels(0.5, round=1, freeze_residual=True), Context())
    assert [each.name for each in plan.dependencies.groups] == ["first"]
    reasons = {row["layer"]: row["reason"] for row in plan.dependencies.frozen()}
    assert reasons["second"] == reasons["side"] == "add in --freeze-residual"


def test_rules_name_layers_and_a_group_is_as_careful_as_its_layers(small: Small) -> None:
    assert preview(network(small), Channels("first=0.5", round=1)) == {"first": (16, 8)}
    both = preview(network(small), Channels("second=0.5,side=0.25", round=1))
    assert both == {"second": (24, 18), "side": (24, 18)}
    with pytest.raises(StageError, match="no channel would be removed"):
        preview(network(small), Channels("second=0.5", round=1))  # its partner has no rule
    with pytest.raises(StageError, match="no layer is called 'third'"):
        preview(network(small), Channels("third=0.5"))


def test_nothing_to_prune() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    with pytest.raises(
        StageError, match="no channel that can be removed: 1 is held by the network"
    ):
        preview(network(module), Channels(0.5))


# ---- widths --------------------------------------------------------------------------------------


def stairs(step: int) -> Curve:
    widths = tuple(range(32, 97, 4))
    return Curve(3, 64, 28, widths, tuple(float(-(-width // step) * step) for width in widths))


def test_the_step_is_that_of_the_stairs() -> None:
    assert [step_of(stairs(step)) for step in (1, 8, 16, 32)] == [1, 8, 16, 32]


def test_a_profile_goes_through_json_and_takes_the_median() -> None:
    profile = Profile("some runtime", "some machine", (stairs(16), stairs(16), stairs(1)))
    assert Profile.from_json(profile.to_json()) == profile
    assert profile.step == 16


def test_profiles_that_are_shipped() -> None:
    steps = {
        name: Profile.from_json(path.read_text(encoding="utf-8")).step
        for name, path in shipped().items()
    }
    assert steps == {"ort-avx512": 16, "wasm": 1}


def test_this_machine_can_be_measured() -> None:
    (curve,) = measure(shapes=[(1, 16, 7)]).curves
    assert len(curve.ms) == len(curve.widths)
    assert min(curve.ms) > 0


# ---- what is left, written down ------------------------------------------------------------------


def test_what_is_left_goes_through_json_and_repeats_the_cut(small: Small) -> None:
    plan = Plan(network(small), Channels(0.5, round=1), Context())
    removed = plan.removed(1, plan.macs.dense)
    made = cut(small, EXAMPLE, plan.dependencies, removed)
    text = Kept.of(plan.dependencies, removed, rewritten=made.rewritten).to_json()
    again = Kept.from_json(text).apply(Small().eval(), EXAMPLE)
    shapes = {name: value.shape for name, value in again.state_dict().items()}
    assert shapes == {name: value.shape for name, value in made.module.state_dict().items()}
    again.load_state_dict(made.module.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), made.module.eval()(x))


def test_what_is_left_is_told_shortly() -> None:
    some, first = np.array([0, 2, 3]), np.arange(5)
    kept = Kept({("a.weight", 0): first, ("a.weight", 1): first, ("b:1", 0): some}, False)
    text = kept.to_json()
    assert text == '{"kept":{"a.weight":5,"a.weight:1":5,"b:1:0":[0,1,2,2]}}'
    for way in (text, text.replace(":5", ":[0,5]"), '{"rewritten":false,' + text[1:]):
        again = Kept.from_json(way)
        assert not again.rewritten
        assert {axis: list(each) for axis, each in again.layers.items()} == {
            axis: list(each) for axis, each in kept.layers.items()
        }
    rewritten = Kept({}, True).to_json()
    assert rewritten == '{"rewritten":true,"kept":{}}'
    assert Kept.from_json(rewritten).rewritten


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"rewritten":false}',
        '{"rewritten":false,"kept":{"first.weight:0":[0,999999999]}}',
        '{"rewritten":false,"kept":{"first.weight:0":[-5,2]}}',
        '{"rewritten":false,"kept":{"first.weight:x":[0,2]}}',
        '{"rewritten":false,"kept":{"other.weight:0":[0,2]}}',
        '{"rewritten":false,"kept":{"first.weight:0":[0,17]}}',
        '{"rewritten":false,"kept":{"head.weight:0":[0,2]}}',
        '{"kept":{"first.weight":0}}',
        '{"kept":{"first.weight":-1}}',
        '{"kept":{"first.weight":true}}',
        '{"kept":{"first.weight":17}}',
    ],
)
def test_what_is_left_of_another_network_is_refused(small: Small, text: str) -> None:
    with pytest.raises(StageError):
        Kept.from_json(text).apply(small, EXAMPLE)


# ---- in a run ------------------------------------------------------------------------------------

QUICK = Training(epochs=1, lr=0.01)


def test_a_run_with_all_stages(tmp_path: Path) -> None:
    """ResNet-20, whose padded shortcuts need the rewritten graph; masks and codebooks on it."""
    torch.manual_seed(0)
    module, _ = loading.build("resnet20")
    recipe = Recipe(
        arch="resnet20",
        channels=Channels(0.4, round=4),
        prune=Prune(0.5),
        share=Share(4),
        threads=1,
    )
    result = compressor.compress(module, recipe, input_shape=(3, 32, 32), output=tmp_path / "out")
    stage = result.report["stages"]["channels"]
    assert stage["rewritten"]
    assert stage["proof"]["difference"] < 1e-12
    assert stage["macs"] < 0.5 * result.report["stages"]["dense"]["macs"]
    assert {row["layer"]: row["reason"] for row in stage["frozen"]} == {
        "linear": "the network's output"
    }
    assert result.report["stages"]["encode"]["sparsity"] > 0.3
    x = torch.randn(3, 3, 32, 32)
    session = onnxruntime.InferenceSession(result.onnx)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    loaded = compressor.load(next((tmp_path / "out").glob("*.dcz")))
    with torch.no_grad():
        np.testing.assert_allclose(loaded(x), found, rtol=0, atol=1e-5 * np.abs(found).max())
    assert loaded.state_dict().keys() == module.state_dict().keys()


def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, monkeypatch: Any) -> None:
    recipe = Recipe(
        arch="lenet5",
        channels=Channels(0.5, round=4, rounds=2, recalibrate=0, reconstruct=100, retrain=QUICK),
        share=Share(4, finetune=dataclasses.replace(QUICK, lr=1e-3)),
        threads=1,
    )

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return loading.build("lenet5")[0]

    def run(name: str, **ways: Any) -> compressor.Result:
        folder = tmp_path / name
        shape = (1, 28, 28)
        return compressor.compress(
            fresh(), recipe, data="digits", input_shape=shape, output=folder, **ways
        )

    def broken(*_: Any) -> Any:
        raise OSError("cut")

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr("compressor.pipeline.share", broken)
        with pytest.raises(OSError, match="cut"):
            run("cut")
    resumed = run("cut", resume=True)
    assert resumed.artifact == whole.artifact
    assert resumed.onnx == whole.onnx
    # 0.5 ** 0.5 of 20, 50 and 500 channels, to the nearest multiple of 4, twice
    widths = {row["group"]: row["after"] for row in whole.report["stages"]["channels"]["groups"]}
    assert widths == {"conv1": 12, "conv2": 24, "fc1": 252}
    rounds = [row["round"] for row in whole.report["stages"]["channels"]["history"]]
    assert rounds == [1, 2]


def test_a_network_that_is_not_faster_ends_with_three(
    compress: Any, shelf: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> Any:
        return timed(dense=1.0, compressed=1.2)

    monkeypatch.setattr("compressor.runtime_files.latency", slow)
    done = compress(shelf / "net.pt", "--channels", "0.5", "--round", "4", "-o", "out", "-q")
    assert done.code == 3
    assert "did not make the network faster: 1.200 ms in place of 1.000 ms" in done.err
    assert json.loads((here / "out" / "report.json").read_text())["missed"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--channels", 0), 2, "--channels is '0': it is the fraction of channels to remove"),
        (("--channels", 1), 2, "--channels is '1': it is the fraction of channels to remove"),
        (("--channels", 1.5), 2, "--channels is '1.5': it must be a number between 0 and 1"),
        (("--target-macs", 1), 2, "--target-macs is 1: it is the part to keep"),
        (("--channels", "conv9=0.5"), 1, "no layer is called 'conv9'"),
        (("--channels", 0.5, "--criterion", "best"), 2, "it must be one of l2, l1, gamma"),
        (("--channels", 0.5, "--criterion", "taylor"), 2, "needs data: give --data"),
        (("--channels", 0.5, "--round", 3), 2, "it must be one of auto, ort-avx512, wasm, 1, 4"),
        (("--channels", "conv=0.5", "--global"), 2, "takes one ratio for all layers"),
        (("--channels", 0.5, "--target-macs", 0.5), 2, "give one of ratio"),
        (("--freeze-residual", "--quantize", "5bit"), 2, "has no effect without"),
        (("--channels", 0.001, "--round", 1), 1, "no channel would be removed"),
    ],
)
def test_bad_settings_leave_nothing(
    compress: Any, shelf: Path, here: Path, arguments: tuple[Any, ...], code: int, says: str
) -> None:
    done = compress(shelf / "net.pt", *map(str, arguments), "-o", "out")
    assert done.code == code
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not (here / "out").exists()


class Branching(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_a_course_that_depends_on_the_input_is_named() -> None:
    with pytest.raises(ExportError, match=r"values of its input, at test_channels_stage.py:\d+"):
        preview(network(Branching().eval()), Channels(0.5, round=1))


def test_one_goal_takes_the_place_of_another() -> None:
    recipe = Recipe(channels=Channels(0.5)).with_settings({"channels.target_macs": "0.25"})
    assert recipe.channels == Channels(target_macs=0.25)
    with pytest.raises(UsageError, match="give one of"):
        Channels()


def test_macs_of_attention_and_products() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(x.shape[0], 6, 3, 2, 8).permute(2, 0, 3, 1, 4)
            return self.out(
                (q @ k.transpose(-2, -1)).softmax(-1).matmul(v).mean((1, 2)).repeat(1, 2)
            )

    example = torch.zeros(1, 6, 16)
    module = Attention().eval()
    counted = Macs(Dependencies(module, example))
    assert counted.dense == layer_macs(module, example)[""]
