"""Trained ternary weights: three values a layer, which training finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import StageError, UsageError
from compressor.layers import compressible_layers, mask_layer, restore, shared_of
from compressor.network import Context
from compressor.quantization import share
from compressor.quantization.ternary import Ternary, begin, codes
from compressor.recipe import Recipe
from compressor.settings import Share, Training
from tests.conftest import Compress
from tests.test_sharing import Small, loss, network, toy_data, weights

STILL = Training(epochs=0)
TRAINED = Training(epochs=20, lr=3e-3, optimizer="adam", weight_decay=0.0, batch_size=16)


def ternary(finetune: Training = STILL, bits: object = "ternary", threshold: float = 0.05) -> Share:
    return Share(bits, finetune=finetune, threshold=threshold)  # type: ignore[arg-type]


def test_codes_are_the_signs_of_what_passes_the_threshold() -> None:
    weight = torch.tensor([-2.0, -0.2, -0.1, 0.0, 0.1, 0.2, 1.0, 9.0])
    kept = torch.tensor([True] * 7 + [False])  # what is pruned does not count as the largest
    assert codes(weight, kept, 0.1).tolist() == [-1, 0, 0, 0, 0, 0, 1, 0]
    assert codes(weight, kept, 0.0).tolist() == [-1, -1, -1, 0, 1, 1, 1, 0]


def test_values_and_gradients_are_those_of_the_paper() -> None:
    """Equations 6 to 8 with t = 0.5, written out weight by weight."""
    linear = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-4.0, -1.0, 0.5, 3.0, 2.5, -3.0]]))
    layer = compressible_layers(nn.Sequential(linear))["0"]
    begin(layer, 0.5)
    torch.testing.assert_close(layer.weight, torch.tensor([[-3.5, 0, 0, 2.75, 2.75, -3.5]]))
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])  # the gradient by each ternary weight
    linear(x).sum().backward()
    steps = linear.parametrizations.weight
    step = steps[0]
    assert isinstance(step, Ternary)
    assert step.scales.grad is not None
    assert step.scales.grad.tolist() == [-(1.0 + 6.0), 4.0 + 5.0]
    expected = torch.tensor([[1 * 3.5, 2, 3, 4 * 2.75, 5 * 2.75, 6 * 3.5]])
    torch.testing.assert_close(steps.original.grad, expected)


@pytest.mark.parametrize("finetune", [STILL, TRAINED], ids=["before", "after training"])
def test_a_layer_has_two_values_besides_zero_and_pruned_weights_stay_zero(
    finetune: Training,
) -> None:
    net = network(0.5)
    before = weights(net.module)
    report = share(net, ternary(finetune), Context(toy_data()))
    for row in report.layers:
        layer = compressible_layers(net.module)[row["layer"]]
        weight = layer.weight.numpy()
        values = np.unique(weight[weight != 0])
        assert len(values) == row["centroids"] == 2
        assert row["bits"] == "ternary"
        assert (weight[before[row["layer"]] == 0] == 0).all()
        pair = shared_of(layer)
        assert pair is not None, "what is stored is a codebook like any other"
        np.testing.assert_array_equal(pair[1], values)


def test_without_training_the_scales_are_the_means_of_their_sides() -> None:
    net = network(None)
    before = weights(net.module)["fc1"]
    share(net, ternary(threshold=0.3), Context())
    limit = 0.3 * np.abs(before).max()
    expected = np.zeros_like(before)
    for side in (before > limit, before < -limit):
        expected[side] = before[side].astype(np.float64).mean()
    np.testing.assert_allclose(weights(net.module)["fc1"], expected, rtol=1e-5)


def test_training_changes_the_codes_and_lowers_the_loss() -> None:
    data = toy_data()
    still, tuned = network(None), network(None)
    tuned.module.load_state_dict(still.module.state_dict())
    share(still, ternary(), Context())
    share(tuned, ternary(TRAINED), Context(data))
    assert loss(tuned.module, data) < 0.5 * loss(still.module, data)
    signs = [np.sign(weights(each.module)["fc1"]) for each in (still, tuned)]
    assert (signs[0] != signs[1]).any(), "training finds which weights are what"


def test_ternary_layers_stand_beside_shared_ones() -> None:
    net = network(None)
    settings = ternary(TRAINED, "*=ternary,fc2=4bit")
    rows = {r["layer"]: r for r in share(net, settings, Context(toy_data())).layers}
    assert {name: row["centroids"] for name, row in rows.items()} == {
        "conv": 2, "fc1": 2, "fc2": 16,
    }  # fmt: skip


def test_a_saved_stage_is_taken_up_again() -> None:
    net = network(0.5)
    share(net, ternary(TRAINED), Context(toy_data()))
    other = Small()
    restore(other, net.module.state_dict())
    for name, weight in weights(net.module).items():
        np.testing.assert_array_equal(weights(other)[name], weight)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_weights_of_one_sign_take_one_centroid(sign: float) -> None:
    net = network(None)
    with torch.no_grad():
        net.module.get_parameter("fc2.weight").abs_().mul_(sign)
    report = share(net, ternary(bits="fc2=ternary"), Context())
    assert report.layers[0]["centroids"] == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.0, "fc1 has no weight other than zero"), (torch.nan, "fc1 has weights that are NaN")],
)
def test_weights_that_cannot_be_are_refused_by_name(value: float, message: str) -> None:
    net = network(None)
    with torch.no_grad():
        net.module.get_parameter("fc1.weight").fill_(value)
    with pytest.raises(StageError, match=message):
        share(net, ternary(), Context())


def test_masked_layers_keep_their_masks() -> None:
    net = network(None)
    layer = compressible_layers(net.module)["fc1"]
    mask: Tensor = torch.rand(layer.weight.shape) < 0.3
    mask_layer(layer, mask)
    share(net, ternary(TRAINED), Context(toy_data()))
    assert not compressible_layers(net.module)["fc1"].weight[~mask].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share.bits": "ternary", "share.rate": 0.02}, "no effect on ternary"),
        ({"share.bits": "ternary", "share.threshold": 1}, "share.threshold is 1"),
        ({"share.bits": "ternary", "share.threshold": -0.1}, "share.threshold is -0.1"),
        ({"share.bits": "ternery"}, "1bit to 16bit, such as 5bit, or ternary"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe().with_settings(settings)


def test_recipes_say_ternary() -> None:
    recipe = Recipe().with_settings({"share.bits": "*=ternary,fc=8bit"})
    assert recipe.share is not None
    assert recipe.share.rules.table() == {"*": "ternary", "fc": 8}
    assert '"*" = "ternary"' in recipe.to_toml()
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_a_run_is_repeated_to_the_byte(compress: Compress, shelf: Path, here: Path) -> None:
    data = ("--data", shelf / "data.npz", "-q")
    options = ("--quantize", "ternary", "--finetune-epochs", 1, "--profile", "fast", "--threads", 1)
    assert compress("run", shelf / "net.pt", *options, *data, "-o", "one").code == 0
    recipe = here / "one" / "recipe.toml"
    outcome = compress("run", shelf / "net.pt", "--recipe", recipe, "-q", "-o", "two")
    assert outcome.code == 0, outcome.err
    assert (here / "one" / "net.dcz").read_bytes() == (here / "two" / "net.dcz").read_bytes()


def test_without_data_the_run_says_that_nothing_is_trained(
    compress: Compress, shelf: Path, here: Path
) -> None:
    options = ("--quantize", "ternary", "--profile", "fast", "-o", "out")
    outcome = compress("run", shelf / "net.pt", *options)
    assert outcome.code == 0
    assert "without data ternary weights are not trained" in outcome.err + outcome.out
