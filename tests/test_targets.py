"""Targets: files on disk against what was asked, searches that repeat, and what cannot be met."""

import importlib
import itertools
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import compressor
from compressor import Prune, Recipe, Share, Targets, artifact
from compressor.errors import UsageError
from compressor.network import Context, Network
from compressor.recipe import from_table
from compressor.scan.allocation import Setting, allocate, allocate_within, layer_model, price_of
from compressor.scan.proposal import with_settings
from compressor.settings import parse_size, parse_times
from compressor.targets.models import mended, of_weights, weighted
from compressor.targets.search import CLOSE_TRAINED, TRAININGS, _Search
from compressor.targets.trials import Outcome, Trials
from compressor.training import data as datasets
from compressor.training.evaluation import evaluate
from tests.conftest import Compress, run_compress

PARAMETERS = 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
SHORT = ("--epochs", 1, "--finetune-epochs", 1, "--threads", 1, "-q")
FILES = {"net.dcz", "net.onnx", "recipe.toml", "report.json", "report.html", "report.md"}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("net") / "net.pt"
    train = ("train", "lenet-300-100", "--data", "digits", "--epochs", 5, "--threads", 1, "-q")
    made = run_compress(*train, "-o", target)
    assert made.code == 0, made.err
    return target


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def validation_accuracy(path: Path) -> float:
    data = datasets.load("digits", input_shape=(1, 28, 28))
    return evaluate(compressor.load(path), data, data.validation)


# ---- a size --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "most"),
    [(("--target-size", "3%"), 0.03), (("--target-ratio", "60"), 1 / 60)],
)
def test_the_file_is_as_small_as_asked_and_its_recipe_repeats_it(
    target: tuple[str, str], most: float, net: Path, here: Path, compress: Compress
) -> None:
    done = compress(net, "--data", "digits", *target, *SHORT)

    assert done.code == 0, done.err
    written = (here / "net-compressed" / "net.dcz").read_bytes()
    assert 0.8 * most < len(written) / (4 * PARAMETERS) <= most
    report = report_of(here / "net-compressed")
    tried = report["targets"]["tried"]
    assert report["missed"] == []
    assert 1 <= sum(row["trained"] for row in tried) <= TRAININGS
    # What will be retrained is pruned further, and shared less, than what will not.
    first = next(row for row in tried if row["trained"])
    assert first["sparsity"] > tried[0]["sparsity"]
    assert first["bits"] > tried[0]["bits"]
    # The run ends where its trial did: nothing in the artifact depends on the search.
    assert len(written) in [row["bytes"] for row in tried if row["met"]]

    recipe = Recipe.read(here / "net-compressed" / "recipe.toml")
    assert recipe.prune is not None
    assert recipe.share is not None
    again = compress(net, "--recipe", "net-compressed/recipe.toml", "-q", "-o", "again")
    assert again.code == 0, again.err
    assert (here / "again" / "net.dcz").read_bytes() == written
    assert "targets" not in report_of(here / "again")


def test_without_data_layers_are_ranked_by_their_weights(
    net: Path, here: Path, compress: Compress
) -> None:
    done = compress(net, "--target-size", "0.05", "--weights-only", "--threads", 1)

    assert done.code == 0, done.err
    written = (here / "net-compressed" / "net.dcz").stat().st_size
    assert 0.8 * 0.05 < written / (4 * PARAMETERS) <= 0.05
    report = report_of(here / "net-compressed")
    assert report["targets"]["ranked_by"] == "squared error of the weights"
    assert not any(row["trained"] for row in report["targets"]["tried"])
    assert "tried for the target" in done.out
    # What the report lists of each layer is what the artifact holds.
    chosen = next(row for row in report["targets"]["tried"] if row["bytes"] == written)["layers"]
    held = artifact.read(here / "net-compressed" / "net.dcz").tensors()
    module = torch.load(net)
    for name, (sparsity, bits) in chosen.items():
        kept = int((held[f"{name}.weight"] != 0).sum())
        weights = module[f"{name}.weight"].numel()
        assert kept <= weights - round(sparsity * weights)  # dead units may take more away
        assert len(np.unique(held[f"{name}.weight"])) <= 2**bits + 1


# ---- a drop --------------------------------------------------------------------------------------


def test_a_drop_alone_gives_a_small_file_within_it(
    net: Path, here: Path, compress: Compress
) -> None:
    done = compress(net, "--data", "digits", "--max-drop", 2, *SHORT)

    assert done.code == 0, done.err
    report = report_of(here / "net-compressed")
    targets = report["targets"]
    data = datasets.load("digits", input_shape=(1, 28, 28))
    assert targets["validation_images"] == len(data.validation)
    before = validation_accuracy(here / "net-compressed" / "net.dcz") + targets["drop"] / 100
    assert targets["validation_dense"] == pytest.approx(before)
    assert targets["drop"] <= 2
    assert {row["trained"] for row in targets["tried"]} == {False, True}
    allowed = [row["bytes"] for row in targets["tried"] if row["met"]]
    assert (here / "net-compressed" / "net.dcz").stat().st_size == min(allowed)


def test_training_pays(net: Path, here: Path, compress: Compress) -> None:
    longer = ("--epochs", 8, "--finetune-epochs", 2, "--threads", 1, "-q")
    done = compress(net, "--data", "digits", "--max-drop", 3, *longer)

    assert done.code == 0, done.err
    met = [row for row in report_of(here / "net-compressed")["targets"]["tried"] if row["met"]]
    # What is within the drop with it is smaller than what is without.
    trained = [row["bytes"] for row in met if row["trained"]]
    assert trained
    assert min(trained) < min(row["bytes"] for row in met if not row["trained"])


# ---- what cannot be met --------------------------------------------------------------------------


def test_a_drop_out_of_reach_without_training_leaves_the_gentlest(
    net: Path, here: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("compressor.targets.search")  # also a function's name
    monkeypatch.setattr(module, "within", lambda lost, max_drop: False)
    untrained = ("--epochs", 0, "--finetune-epochs", 0, "--threads", 1, "-q")
    done = compress(net, "--data", "digits", "--max-drop", 0.5, *untrained)

    assert done.code in (0, 3), done.err
    targets = report_of(here / "net-compressed")["targets"]
    assert targets["bytes"] == max(row["bytes"] for row in targets["tried"])


def test_a_size_out_of_reach_ends_with_3_and_the_smallest_file(
    net: Path, here: Path, compress: Compress
) -> None:
    done = compress(net, "--data", "digits", "--target-ratio", 1_000_000, *SHORT)

    assert done.code == 3
    assert done.err.count("\n") == 1
    assert "1 were the target; nothing that was tried is as small" in done.err
    assert {path.name for path in (here / "net-compressed").iterdir()} == FILES
    report = report_of(here / "net-compressed")
    assert len(report["missed"]) == 1
    assert "Missed: the artifact has" in (here / "net-compressed" / "report.html").read_text()


def test_where_both_cannot_be_had_the_size_is_and_the_drop_is_said(
    net: Path, here: Path, compress: Compress
) -> None:
    both = ("--target-ratio", 250, "--max-drop", 0, "--weights-only")
    done = compress(net, "--data", "digits", *both, *SHORT)

    assert done.code == 3
    assert "accuracy on 144 validation images fell by" in done.err
    assert "not by at most 0" in done.err
    size = (here / "net-compressed" / "net.dcz").stat().st_size
    assert size <= 4 * PARAMETERS / 250
    assert {path.name for path in (here / "net-compressed").iterdir()} == FILES


def test_from_python_targets_are_an_argument(net: Path) -> None:
    recipe = Recipe(prune=Prune(), share=Share(), threads=1)
    result = compressor.compress(net, recipe, targets=Targets(size="2%"))  # type: ignore[arg-type]
    assert len(result.artifact) <= 0.02 * 4 * PARAMETERS
    assert result.report["targets"]["size"] == 0.02
    # What was to be found is in the recipe, and what was in its place before is not.
    found = from_table(Recipe, result.report["recipe"])
    assert found.prune.sensitivity is None
    assert set(found.share.bits.table()) == {"fc1", "fc2", "fc3"}


# ---- options -------------------------------------------------------------------------------------

DATA = ("--data", "digits")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--target-size", "0"), 2, "--target-size is '0'"),
        (("--target-size", "0%"), 2, "--target-size is '0%'"),
        (("--target-size", "-25%"), 2, "over 0 and under 100%, such as 25% or 0.25"),
        (("--target-size", "100%"), 2, "--target-size is '100%'"),
        (("--target-size", "200%"), 2, "--target-size is '200%'"),
        (("--target-size", "25"), 2, "--target-size is '25'"),
        (("--target-size", "small"), 2, "--target-size is 'small'"),
        (("--target-size", "nan%"), 2, "--target-size is 'nan%'"),
        (("--target-ratio", "1"), 2, "--target-ratio is '1'"),
        (("--target-ratio", "0.5"), 2, "a number over 1, such as 40"),
        (("--target-ratio", "-3"), 2, "--target-ratio is '-3'"),
        (("--target-ratio", "inf"), 2, "--target-ratio is 'inf'"),
        (("--target-ratio", "x"), 2, "--target-ratio is 'x'"),
        ((*DATA, "--max-drop", "-1"), 2, "--max-drop is '-1'"),
        ((*DATA, "--max-drop", "101"), 2, "between 0 and 100"),
        ((*DATA, "--max-drop", "x"), 2, "--max-drop"),
        (("--max-drop", "1"), 2, "give --data"),
        (("--target-size", "9%", "--target-ratio", "9"), 2, "give one"),
        (("--target-size", "9%", "--quantize", "auto"), 2, "leave --quantize out"),
        (("--target-size", "9%", "--quantize", "5bit"), 2, "--quantize is found by a search"),
        (("--target-size", "9%", "--sparsity", "0.9"), 2, "--sparsity is found by a search"),
        (("--target-size", "9%", "--prune-sensitivity", "1"), 2, "--prune-sensitivity is found"),
        (("--target-size", "9%", "--scope", "lamp"), 2, "--scope is found by a search"),
        (("--target-size", "9%", "--set", "share.bits=3"), 2, "--quantize is found by a search"),
        ((*DATA, "--max-drop", "1", "--quantize", "5bit"), 2, "leave --quantize out"),
        (("--target-size", "9%", "--dry-run"), 2, "--dry-run runs nothing"),
    ],
)
def test_bad_input_gets_one_line(
    options: tuple[str, ...], code: int, said: str, net: Path, here: Path, compress: Compress
) -> None:
    done = compress(net, *options, "-q")

    assert done.code == code, done.err
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(here.iterdir())


def test_a_folder_in_use_is_refused_before_the_search(
    net: Path, here: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "net-compressed").mkdir()
    (here / "net-compressed" / "mine.txt").write_text("mine")
    monkeypatch.setattr("compressor.api.search", lambda *_: pytest.fail("searched"))
    done = compress(net, "--target-size", "9%", "-q")
    assert done.code == 1
    assert "--force" in done.err


def test_sizes_and_ratios_are_parts() -> None:
    assert parse_size("25%") == parse_size(0.25) == parse_size("0.25") == 0.25
    assert parse_times("40") == parse_times(40) == 1 / 40
    with pytest.raises(UsageError, match="give a size, a max_drop, or both"):
        Targets()


# ---- the allocation ------------------------------------------------------------------------------


def test_an_allocation_spends_what_one_price_leaves() -> None:
    # One layer whose curve is not convex: at no price is anything between its ends taken.
    cliff = layer_model(10_000, [(0.5, 1.0), (0.9, 1.05)], [(4, 0.0, 4.0), (3, 0.9, 3.0)])
    even = layer_model(1000, [(0.5, 0.1), (0.9, 0.5)], [(4, 0.0, 4.0), (2, 0.3, 2.0)])
    models = {"cliff": cliff, "even": even}

    def totals(chosen: dict[str, Setting]) -> tuple[float, float]:
        increase = size = 0.0
        for name, setting in chosen.items():
            row = int(np.flatnonzero(models[name].sparsities == setting.sparsity)[0])
            column = models[name].widths.index(setting.bits)
            increase += models[name].increase[row, column]
            size += models[name].size[row, column]
        return increase, size

    gained = 0
    for bits in (12_000, 20_000, 30_000, 40_000):
        increase, size = totals(allocate_within(models, bits))
        by_price, _ = totals(allocate(models, price_of(models, bits))[0])
        sums = (
            a[:, None] + b[None, :]
            for a, b in (
                (cliff.increase.ravel(), even.increase.ravel()),
                (cliff.size.ravel(), even.size.ravel()),
            )
        )
        increases, sizes = sums
        assert size <= bits
        assert increases[sizes <= bits].min() - 1e-9 <= increase <= by_price
        gained += increase < by_price
    assert gained


def test_without_images_nothing_is_too_small_to_be_told() -> None:
    values = torch.tensor([1e-4] * 600 + [-1e-4] * 600 + [1.0] * 400 + [-1.0] * 400)
    module = torch.nn.Sequential(torch.nn.Linear(50, 40))
    with torch.no_grad():
        module[0].weight.copy_(values.view(40, 50))
    network = Network(module, torch.zeros(1, 50), "net", "linear")
    (model,) = of_weights(network, seed=0).values()
    shared = dict(zip(model.widths, model.increase[0], strict=True))
    pruned = model.increase[:, model.widths.index(8)]

    assert shared[2] == pytest.approx(0.0, abs=1e-12)  # four values, four centroids
    # Two: 400 alone, of the others 1200 lie 1/4 and 400 lie 3/4 from their mean, 1/4.
    assert shared[1] == pytest.approx(300 / (400 + 1600 / 16), rel=1e-3)
    assert pruned[model.sparsities < 0.6].max() < 2 * 1200 * 1e-8 / 800
    assert np.interp(0.7, model.sparsities, pruned) == pytest.approx(200 / 600, rel=1e-2)


def test_training_tells_what_is_left_of_the_cost_of_pruning() -> None:
    pruned = [(0.5, 0.4), (0.75, 1.0), (0.9, 4.0)]
    shared = [(8, 0.0, 7.5), (4, 0.2, 3.9), (2, 1.0, 1.9), (1, 4.0, 1.0)]
    models = {name: layer_model(1000, pruned, shared, resolution=0.0) for name in ("a", "b")}
    plain = allocate_within(models, 4000)
    chosen = {"a": Setting(0.0, 4), "b": Setting(float(models["b"].sparsities[40]), 2)}
    foreseen = float(models["b"].pruning[40])
    # Of pruning a tenth is left, of sharing half of what was foreseen.
    factor = mended(models, chosen, (0.1 * foreseen, 0.5 * (0.2 + 1.0)))
    assert factor == pytest.approx(0.2)
    trained = weighted(models, 0.2)

    assert trained["a"].pruning == pytest.approx(0.2 * models["a"].pruning)
    assert trained["a"].sharing is models["a"].sharing
    for name, setting in allocate_within(trained, 4000).items():
        assert setting.sparsity > plain[name].sparsity
        assert (setting.bits or 0) > (plain[name].bits or 0)
    # A training that mends everything does not make pruning free.
    assert mended(models, chosen, (-0.1, 1.2)) == pytest.approx(0.05)
    # Where nothing was pruned there is nothing to tell.
    assert mended(models, {"a": Setting(0.0, 4)}, (0.0, 0.1)) is None


def test_a_training_to_a_size_is_followed_by_one_that_it_corrected() -> None:
    pruned = [(each, each**3 / (1 - each)) for each in (0.4, 0.6, 0.8, 0.9, 0.95, 0.99)]
    shared = [(bits, 16.0 * 4.0**-bits, 0.95 * bits) for bits in range(1, 9)]
    scanned = {name: layer_model(1000, pruned, shared) for name in ("0", "1")}
    layers = (torch.nn.Linear(25, 40), torch.nn.Linear(40, 25))
    network = Network(torch.nn.Sequential(*layers), torch.zeros(1, 25), "net", "net")

    class Fake:
        """Nine tenths of the cost of pruning are left after training; files grow by 5 %."""

        trains = retrains = True
        accuracy = 1.0
        context = Context()

        def __init__(self) -> None:
            self.network = network

        def trial(self, settings: dict[str, Setting], *, train: bool) -> Outcome:
            bits, costs = 0.0, []
            for name, chosen in settings.items():
                model = scanned[name]
                row = list(model.sparsities).index(chosen.sparsity)
                bits += model.size[row, model.widths.index(chosen.bits)]
                costs.append(model.parts(chosen))
            pruning, sharing = map(sum, zip(*costs, strict=True))
            harm = (0.9 * pruning, sharing) if train else None
            size = int(bits / 8 * (1.05 if train else 1.0))
            return Outcome(settings, Recipe(), size, 0.9 if train else 0.5, train, harm)

    finder = _Search(cast(Trials, Fake()), scanned, Targets(size=0.06), 8000)
    found = finder.best()
    trained = [row for row in finder.tried if row["trained"]]

    # 0.1, then half-way to 0.9 in logarithms, 0.3, then 0.52, which holds.
    assert finder.factor == pytest.approx((0.1 * 0.9**3) ** 0.25)
    assert [row["bytes"] <= 480 for row in trained] == [False, True]
    assert trained[1]["sparsity"] < trained[0]["sparsity"]
    assert trained[1]["bits"] < trained[0]["bits"]
    assert found.bytes == trained[1]["bytes"] > CLOSE_TRAINED * 480


def test_a_layer_named_as_a_kind_has_its_own_settings() -> None:
    chosen = {"a": Setting(0.5, 4), "fc": Setting(0.9, 2), "b": Setting(0.0, 3)}
    recipe = with_settings(Recipe(), chosen)
    kinds = dict.fromkeys(("a", "fc", "b"), "fc")
    assert recipe.prune is not None
    assert recipe.share is not None
    assert recipe.prune.rules.resolve(kinds) == {"a": 0.5, "fc": 0.9}
    assert recipe.share.rules.resolve(kinds) == {"a": 4, "fc": 2, "b": 3}
    for names in itertools.permutations(kinds):
        again = with_settings(Recipe(), {name: chosen[name] for name in names})
        assert again.share is not None
        assert again.share.rules.resolve(kinds) == {"a": 4, "fc": 2, "b": 3}
