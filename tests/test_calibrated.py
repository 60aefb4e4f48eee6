"""Grids as fine as the outputs need: norms, sensitivities, compensated rounding, the stage."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import compressor
from compressor.artifact import read
from compressor.errors import StageError
from compressor.layers import Layer, compressible_layers, mask_layer, mask_of, shared_of
from compressor.models import registry
from compressor.network import Context, Network
from compressor.quantization import calibrate, norms, sensitivity
from compressor.quantization.calibrated import Grid, Quantizer
from compressor.quantization.compensation import Compensation
from compressor.quantization.inputs import Inputs
from compressor.quantization.vectors import rounded
from compressor.settings import Calibrate
from compressor.training import data as datasets
from compressor.training.data import Data
from tests.conftest import Compress


def layer_of(module: nn.Module) -> Layer:
    return Layer("x", "fc" if isinstance(module, nn.Linear) else "conv", module)


def measured(module: nn.Module, x: Tensor) -> sensitivity.Sensitivities:
    layers = compressible_layers(module)
    return sensitivity.measure(module.eval(), layers, Inputs([x], 1), Context())


# ---- norms -------------------------------------------------------------------------------------


def normed() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    )
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.01, 3)  # type: ignore[union-attr]
    return module.eval()


def test_settled_norms_compute_the_same_with_constant_statistics() -> None:
    module = normed()
    x = torch.randn(4, 3, 8, 8)
    before = module(x).detach()
    norms.settle(module)
    assert torch.allclose(module(x), before, atol=1e-5)
    assert module[1].running_mean.eq(0).all()  # type: ignore[index,union-attr]
    assert module[1].running_var.eq(1).all()  # type: ignore[index,union-attr]


def test_made_inputs_have_the_norms_statistics() -> None:
    module = normed()
    with torch.no_grad():  # statistics that some real inputs have
        real = module[0](0.3 + 1.5 * torch.randn(200, 3, 8, 8))  # type: ignore[index,operator]
        module[1].running_mean.copy_(real.mean((0, 2, 3)))  # type: ignore[index,union-attr]
        module[1].running_var.copy_(real.var((0, 2, 3)))  # type: ignore[index,union-attr]
    made = norms.synthesize(module, (3, 8, 8), 50, torch.Generator().manual_seed(1))
    noise = torch.randn(50, 3, 8, 8)

    def distance(x: Tensor) -> float:
        y = module[0](x).detach()  # type: ignore[index,operator]
        return float(((y.mean((0, 2, 3)) - real.mean((0, 2, 3))) ** 2).sum())

    assert made.shape == (50, 3, 8, 8)
    assert distance(made) < 0.1 * distance(noise)


def test_without_norms_no_inputs_can_be_made() -> None:
    with pytest.raises(StageError, match="no batch norm"):
        norms.synthesize(nn.Linear(3, 2), (3,), 5, torch.Generator())


# ---- sensitivities -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(6, 4), (5, 6)),
        (nn.Linear(6, 4), (5, 7, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (5, 4, 7, 9)),
        (nn.Conv2d(4, 6, (3, 1), padding="same", dilation=2), (5, 4, 7, 9)),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (5, 4, 7, 9)),
        (nn.Conv2d(4, 8, 3, groups=4, padding=1), (5, 4, 6, 6)),
        (nn.Conv1d(4, 6, 3, padding=2), (5, 4, 9)),
        (nn.Conv1d(4, 6, 3, groups=2, padding="valid"), (5, 4, 9)),
    ],
)
def test_moments_tell_the_mean_square_of_what_weights_make(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    """For any weights: E @ moments @ E is the mean square of the outputs without bias."""
    torch.manual_seed(2)
    x = torch.randn(shape)
    layer = layer_of(module)
    found = sensitivity.measure(module, {"x": layer}, Inputs([x], 1), Context()).layers["x"]
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.weight.normal_()  # type: ignore[operator,union-attr]
        other.bias.zero_()  # type: ignore[operator,union-attr]
        y = other(x)
        weight = other.weight
    assert isinstance(weight, Tensor)
    rows = 1 if "Conv" in type(module).__name__ else y.ndim - 1
    squares = y.square().mean([d for d in range(y.ndim) if d != rows])
    cut = sensitivity.blocks(layer, weight.detach())
    quadratic = torch.einsum("brc,bcd,brd->br", cut, found.moments, cut).flatten()
    assert torch.allclose(quadratic, squares, rtol=1e-4)
    assert torch.equal(sensitivity.unblocks(layer, cut), weight)


def test_the_sum_predicts_how_the_outputs_change() -> None:
    """Averaged over random errors, on a network with a kink."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    x = torch.randn(400, 3, 8, 8)
    found = measured(module, x)
    first = compressible_layers(module)["0"]
    cost = found.layers["0"].of_weights(first)
    before = module(x).detach()
    changes, predicted = [], []
    for seed in range(30):
        error = 1e-3 * torch.randn(
            first.weight.shape, generator=torch.Generator().manual_seed(seed)
        )
        other = copy.deepcopy(module)
        with torch.no_grad():
            other[0].weight += error
            change = other(x) - before
        changes.append(float((change - change.mean(1, keepdim=True)).square().sum(1).mean()))
        predicted.append(float((cost * error.double() ** 2).sum()))
    assert np.mean(predicted) == pytest.approx(np.mean(changes), rel=0.15)


def test_wide_layers_are_cut_into_blocks_of_at_most_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sensitivity, "BLOCK", 8)
    layer = layer_of(nn.Linear(30, 4))
    cut = sensitivity.blocks(layer, layer.weight)
    assert cut.shape == (5, 4, 6)  # 30 columns: the fewest even blocks of at most 8
    assert torch.equal(sensitivity.unblocks(layer, cut), layer.weight)
    assert torch.equal(cut[2, 1], layer.weight[1, 12:18])
    found = measured(nn.Sequential(layer.module), torch.randn(9, 30))
    assert found.layers["0"].moments.shape == (5, 6, 6)
    assert found.layers["0"].importance.shape == (5, 4)


# ---- compensated rounding ----------------------------------------------------------------------


def correlated(columns: int = 12, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(500, columns, generator=generator, dtype=torch.float64)
    x[:, 1:] += 1.5 * x[:, :1]
    return (x.T @ x / len(x)).unsqueeze(0)


def cost_of(error: Tensor, moments: Tensor) -> float:
    return float(torch.einsum("brc,bcd,brd->", error, moments, error))


def rounding(
    moments: Tensor, kept: Tensor, weights: Tensor, step: float, price: float = 0.0
) -> Tensor:
    importance = torch.ones(kept.shape[:2], dtype=torch.float64)
    return Compensation.of(moments, kept, importance).levels(weights, step, price)


def test_compensation_beats_rounding_to_the_nearest() -> None:
    moments = correlated(100)
    weights = torch.randn(1, 40, 100, generator=torch.Generator().manual_seed(5)).double()
    kept = torch.ones(1, 40, 100, dtype=torch.bool)
    levels = rounding(moments, kept, weights, 0.3)
    nearest = (weights / 0.3).round()
    assert cost_of(weights - 0.3 * levels, moments) < 0.7 * cost_of(
        weights - 0.3 * nearest, moments
    )


def test_two_columns_are_rounded_as_by_hand() -> None:
    """After the first is rounded, the second minimises the whole quadratic form."""
    moments = torch.tensor([[[2.0, 1.2], [1.2, 1.0]]], dtype=torch.float64)
    weights = torch.tensor([[[0.37, 0.9]]])
    levels = rounding(moments, torch.ones(1, 1, 2).bool(), weights, 0.5)
    damped = moments[0] + 0.01 * 1.5 * torch.eye(2)
    first = round(0.37 / 0.5)
    shifted = 0.9 + (0.37 - 0.5 * first) * float(damped[0, 1] / damped[1, 1])
    assert levels.tolist() == [[[first, round(shifted / 0.5)]]]


def test_without_correlation_every_weight_is_rounded_to_the_nearest() -> None:
    weights = torch.randn(2, 5, 50, generator=torch.Generator().manual_seed(6))
    moments = torch.eye(50).expand(2, 50, 50)
    kept = torch.ones_like(weights).bool()
    levels = rounding(moments, kept, weights, 0.25)
    assert torch.equal(levels, (weights.double() / 0.25).round().long())


@pytest.mark.parametrize("keep", [0.3, 0.95])
def test_pruned_weights_stay_zero_and_only_others_make_up_for_errors(keep: float) -> None:
    moments = correlated(40)
    weights = torch.randn(1, 30, 40, generator=torch.Generator().manual_seed(7)).double()
    kept = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(8)) < keep
    weights = torch.where(kept, weights, 0.0)
    levels = rounding(moments, kept, weights, 0.3)
    assert not levels[~kept].any()
    nearest = (weights / 0.3).round()
    assert cost_of(weights - 0.3 * levels, moments) < 0.8 * cost_of(
        weights - 0.3 * nearest, moments
    )


def test_sparse_rows_are_rounded_as_the_dense_problem_of_what_they_keep() -> None:
    moments = correlated(20)
    weights = torch.randn(1, 3, 20, generator=torch.Generator().manual_seed(9)).double()
    kept = torch.zeros(1, 3, 20, dtype=torch.bool)
    for row, columns in enumerate(([1, 4, 5, 9], [0, 2, 19], [])):
        kept[0, row, columns] = True
    found = rounding(moments, kept, torch.where(kept, weights, 0.0), 0.2)
    for row in range(3):
        chosen = kept[0, row].nonzero().flatten()
        if not len(chosen):
            assert not found[0, row].any()
            continue
        own = moments[:, chosen][:, :, chosen]
        whole = torch.ones(1, 1, len(chosen), dtype=torch.bool)
        expected = rounding(own, whole, weights[:, row : row + 1, chosen], 0.2)
        assert torch.equal(found[0, row, chosen], expected[0, 0])


def test_a_price_prunes_what_is_not_worth_its_place() -> None:
    moments = correlated(40)
    kept = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(8)) < 0.3
    weights = torch.randn(1, 30, 40, generator=torch.Generator().manual_seed(7)).double()
    weights = torch.where(kept, weights, 0.0)
    counts, costs = [], []
    for price in (0.0, 0.02, 0.1):
        levels = rounding(moments, kept, weights, 0.2, price)
        counts.append(int((levels != 0).sum()))
        costs.append(cost_of(weights - 0.2 * levels, moments))
    assert counts[0] > counts[1] > counts[2] > 0
    assert costs[0] < costs[1] < costs[2]


# ---- vectors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.3, 0.02, 0.001])
def test_vectors_are_multiples_of_a_power_of_two(noise: float) -> None:
    values = 3 * torch.randn(200, generator=torch.Generator().manual_seed(3)) + 1
    found = rounded(values, noise)
    size = float(values.square().mean().sqrt())
    error = float((found - values).square().mean().sqrt())
    assert 0.3 * noise * size < error < 1.2 * noise * size
    steps = found.double().abs()[found != 0]
    step = float(2.0 ** np.floor(np.log2(noise * np.sqrt(12) * size)))
    assert torch.equal(steps / step, (steps / step).round())


def test_vectors_of_zeros_stay() -> None:
    assert torch.equal(rounded(torch.zeros(5), 0.1), torch.zeros(5))


# ---- the stage ---------------------------------------------------------------------------------


def test_grids_become_indices_and_codebooks() -> None:
    grid = Grid(torch.tensor([[-2, 0, 3], [1, 0, -1]]), np.float32(0.5))
    indices, codebook = grid.shared()
    assert codebook.tolist() == [-1.0, -0.5, 0.5, 1.0, 1.5]
    table = torch.cat([torch.zeros(1), codebook])
    assert torch.equal(table[indices.long()], grid.levels * 0.5)
    only = Grid(torch.tensor([4, 0]), np.float32(0.25))
    assert only.shared()[1].tolist() == [0.25, 0.5, 0.75, 1.0]


@pytest.fixture(scope="module")
def digits() -> Data:
    return datasets.load("digits", input_shape=(1, 28, 28))


@pytest.fixture(scope="module")
def trained(digits: Data) -> nn.Module:
    from compressor.settings import Training
    from compressor.training.fit import fit

    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = registry.get("lenet-300-100").build()
    fit(module, Training(epochs=8, lr=0.05), Context(data=digits), "train")
    return module.eval()


def network_of(module: nn.Module) -> Network:
    return Network(copy.deepcopy(module), torch.zeros(1, 1, 28, 28), "net", "lenet-300-100")


def change(before: nn.Module, after: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        y, z = before(x), after(x)
    y, z = y - y.mean(1, keepdim=True), z - z.mean(1, keepdim=True)
    return float(((y - z).square().sum() / y.square().sum()).sqrt())


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_the_outputs_change_by_about_the_noise(
    noise: float, trained: nn.Module, digits: Data
) -> None:
    network = network_of(trained)
    calibrate(network, Calibrate(noise=noise), Context(data=digits))
    x = datasets.normalise(digits.test.x, digits)
    assert 0.5 * noise < change(trained, network.module, x) < 2 * noise
    for layer in compressible_layers(network.module).values():
        assert shared_of(layer) is not None


def test_layers_that_matter_less_get_coarser_steps(trained: nn.Module, digits: Data) -> None:
    """A layer whose outputs are scaled down is worth fewer bits than its twin."""

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.left, self.right = nn.Linear(20, 8), nn.Linear(20, 8)
            self.right.load_state_dict(self.left.state_dict())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.left(x) + 0.1 * self.right(x)
            return y

    module = Twins()
    found = measured(module, torch.randn(300, 20))
    quantizer = Quantizer(module, compressible_layers(module), found)
    steps = [float(quantizer.grid(name, 0.05).step) for name in ("left", "right")]
    assert steps[1] == pytest.approx(10 * steps[0], rel=0.1)


def test_a_layer_of_zeros_stays_one(trained: nn.Module, digits: Data) -> None:
    for data in (digits, None):
        network = network_of(trained)
        layer = compressible_layers(network.module)["fc2"]
        with torch.no_grad():
            network.module.get_parameter("fc2.weight").zero_()
        calibrate(network, Calibrate(noise=0.05), Context(data=data))
        assert not layer.weight.any()


def test_outliers_are_not_cut_off(trained: nn.Module) -> None:
    network = network_of(trained)
    with torch.no_grad():
        network.module.get_parameter("fc2.weight")[3, 4] = 1e5
    calibrate(network, Calibrate(noise=0.01), Context())
    found = compressible_layers(network.module)["fc2"].weight[3, 4]
    assert float(found) == pytest.approx(1e5, rel=1e-4)


def test_masks_hold(trained: nn.Module, digits: Data) -> None:
    network = network_of(trained)
    layers = compressible_layers(network.module)
    masks = {name: layer.weight.abs() > 0.02 for name, layer in layers.items()}
    for name, layer in layers.items():
        mask_layer(layer, masks[name])
    calibrate(network, Calibrate(noise=0.05), Context(data=digits))
    for name, layer in compressible_layers(network.module).items():
        found = mask_of(layer)
        assert found is not None
        assert not (found & ~masks[name]).any()


def test_the_budget_is_kept_and_used(trained: nn.Module, digits: Data) -> None:
    losses, sizes = [], []
    x = datasets.normalise(digits.validation.x, digits)
    y = digits.validation.y
    for max_drop in (0.0, 5.0):
        network = network_of(trained)
        report = calibrate(network, Calibrate(max_drop=max_drop), Context(data=digits))
        with torch.no_grad():
            before, after = trained(x).argmax(1) == y, network.module(x).argmax(1) == y
        losses.append(100 * float((before & ~after).double().mean()))
        sizes.append(sum(row["entropy"] for row in report.layers))
        kept = [row["noise"] for row in report.history if row["kept"]]
        assert report.layers[0]["noise"] == max(kept)
    assert losses[0] == 0
    assert losses[1] <= 5
    assert sizes[1] < 0.95 * sizes[0]


def test_without_data_or_norms_all_layers_are_alike(trained: nn.Module) -> None:
    network = network_of(trained)
    report = calibrate(network, Calibrate(noise=0.1), Context())
    for row in report.layers:
        weight = trained.get_parameter(f"{row['layer']}.weight").detach()
        error = float(compressible_layers(network.module)[row["layer"]].weight.sub(weight).norm())
        assert error == pytest.approx(0.1 * float(weight.norm()), rel=0.1)


def test_without_data_norms_make_the_inputs() -> None:
    torch.manual_seed(0)
    module = registry.get("resnet20").build()
    module.train()
    with torch.no_grad():  # statistics of something that looks like images
        for _ in range(8):
            module(functional.interpolate(torch.randn(20, 3, 8, 8), (32, 32)))
    dense = copy.deepcopy(module.eval())
    network = Network(module, torch.zeros(1, 3, 32, 32), "net", "resnet20")
    calibrate(network, Calibrate(noise=0.05, images=50), Context())
    x = functional.interpolate(torch.randn(20, 3, 8, 8), (32, 32))
    assert change(dense, network.module, x) < 0.15


def test_from_python(trained: nn.Module, digits: Data) -> None:
    recipe = compressor.Recipe(calibrate=compressor.Calibrate(noise=0.05), threads=1)
    done = compressor.compress(copy.deepcopy(trained), recipe, data=digits)
    stages = done.report["stages"]
    assert stages["encode"]["accuracy"] > stages["dense"]["accuracy"] - 0.02
    assert len(done.artifact) < 266_610  # a byte for each parameter


def test_a_network_without_layers_is_refused() -> None:
    network = Network(nn.Sequential(nn.ReLU()), torch.zeros(1, 3), "relu", "relu")
    with pytest.raises(StageError, match="relu has no convolution or linear layer"):
        calibrate(network, Calibrate(), Context())


def test_rows_that_reach_no_output_are_dropped() -> None:
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        module[0].bias[2] = -100  # never above 0 behind the ReLU
    found = measured(module, torch.randn(300, 20))
    levels = Quantizer(module, compressible_layers(module), found).grid("0", 0.01).levels
    assert not levels[2].any()
    assert levels[[0, 1, 3, 4, 5, 6, 7]].count_nonzero(1).min() > 10


# ---- the command line --------------------------------------------------------------------------


@pytest.fixture
def checkpoint(trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def run(compress: Compress, *arguments: Any) -> dict[str, Any]:
    done = compress(*arguments, "--json", "--threads", "1")
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def test_quantize_auto_writes_grids(compress: Compress, checkpoint: Path) -> None:
    report = run(compress, checkpoint, "--quantize", "auto", "--data", "digits")
    assert list(report["stages"]) == ["dense", "calibrate", "dead", "encode", "export"]
    stage = report["stages"]["calibrate"]
    assert [row["noise"] for row in stage["layers"]] == [Calibrate().noise] * 3
    assert report["stages"]["encode"]["accuracy"] > report["stages"]["dense"]["accuracy"] - 0.02
    assert report["stages"]["encode"]["ratio"] > 8
    artifact = read(Path("net-compressed/net.dcz"))
    shared = artifact.shared("fc1.weight")
    assert shared is not None
    step = np.float32(stage["layers"][0]["step"])
    assert np.array_equal(shared.codebook, np.rint(shared.codebook / step) * step)


def test_quantize_auto_repeats_to_the_byte(compress: Compress, checkpoint: Path) -> None:
    given = (checkpoint, "--quantize", "auto", "--max-drop", "1", "--data", "digits")
    run(compress, *given, "-o", "one")
    run(compress, checkpoint, "--recipe", "one/recipe.toml", "-o", "two")
    assert Path("one/net.dcz").read_bytes() == Path("two/net.dcz").read_bytes()


def test_quantize_auto_takes_the_place_of_sharing(compress: Compress, checkpoint: Path) -> None:
    Path("mine.toml").write_text("[share]\nbits = 4\n", encoding="utf-8")
    done = compress(checkpoint, "--recipe", "mine.toml", "--quantize", "auto", "--dry-run")
    assert done.code == 0, done.err
    assert "[calibrate]" in done.out
    assert "[share]" not in done.out
    Path("mine.toml").write_text("[calibrate]\nnoise = 0.1\n", encoding="utf-8")
    done = compress(checkpoint, "--recipe", "mine.toml", "--quantize", "4bit", "--dry-run")
    assert "[calibrate]" not in done.out
    assert "[share]" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quantize", "auto", "--max-drop", "0.1"], "needs data with validation images"),
        (["--quantize", "5bit", "--max-drop", "0.1"], "--max-drop has no effect without"),
        (["--quantize", "auto", "--max-drop", "-1", "--data", "digits"], "--max-drop is -1"),
        (["--quantize", "auto", "--max-drop", "x", "--data", "digits"], "--max-drop is 'x'"),
        (["--quantize", "auto", "--rate-aware"], "no effect without"),
        (["--quantize", "auto", "--set", "calibrate.noise=0"], "calibrate.noise is 0"),
    ],
)
def test_what_cannot_be_is_said(
    compress: Compress, checkpoint: Path, arguments: list[str], message: str
) -> None:
    done = compress(checkpoint, *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not Path("net-compressed").exists()
