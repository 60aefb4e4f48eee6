"""Second-order pruning as a stage and from the command line: exact, repeatable, checked."""

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor import artifact
from compressor.errors import UsageError
from compressor.layers import compressible_layers
from compressor.network import Context
from compressor.pruning import prune
from compressor.recipe import Recipe
from compressor.settings import Prune, Training
from compressor.training.fit import fit
from tests.conftest import Compress
from tests.test_sharing import network, toy_data, weights

STILL = Training(epochs=0)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("scope", ["layer", "global", "erk"])
def test_sparsity_is_exact(scope: str, rounds: int) -> None:
    net = network(None)
    settings = Prune(None, 0.8, scope, "obs", rounds=rounds, retrain=STILL)  # type: ignore[arg-type]
    prune(net, settings, Context(toy_data()))
    zeros = {name: int((value == 0).sum()) for name, value in weights(net.module).items()}
    total = sum(value.size for value in weights(net.module).values())
    assert sum(zeros.values()) == pytest.approx(0.8 * total, abs=len(zeros) / 2)
    if scope != "layer":
        assert sum(zeros.values()) == round(0.8 * total)


def test_outputs_change_less_than_by_magnitude() -> None:
    data = toy_data()
    dense, *nets = (network(None) for _ in range(3))
    fit(dense.module, Training(epochs=5, lr=0.02, batch_size=16), Context(data), "train")
    dense.module.eval()
    changes = {}
    for net, criterion in zip(nets, ("magnitude", "obs"), strict=True):
        net.module.load_state_dict(dense.module.state_dict())
        settings = Prune(None, 0.8, "global", criterion, retrain=STILL)  # type: ignore[arg-type]
        prune(net, settings, Context(data))
        net.module.eval()
        with torch.no_grad():
            difference = net.module(data.test.x) - dense.module(data.test.x)
        changes[criterion] = float(difference.square().mean())
    assert changes["obs"] < 0.5 * changes["magnitude"]


def test_layers_without_a_rule_are_left_as_they_are() -> None:
    net = network(None)
    before = weights(net.module)
    prune(net, Prune(None, "fc1=0.5", criterion="obs", retrain=STILL), Context(toy_data()))
    for name in ("conv", "fc2"):
        np.testing.assert_array_equal(
            compressible_layers(net.module)[name].weight.numpy(), before[name]
        )


def test_a_run_is_exact_and_repeated_to_the_byte(
    compress: Compress, shelf: Path, here: Path
) -> None:
    options = ("--sparsity", "0.8", "--global", "--criterion", "obs", "--epochs", 0)
    data = ("--data", shelf / "data.npz", "--profile", "fast", "--threads", 1, "-q")
    outcome = compress("run", shelf / "net.pt", *options, *data, "-o", "one")
    assert outcome.code == 0, outcome.err
    stage = artifact.read(here / "one" / "net.dcz")
    kept = sum(entry.nonzero for entry in stage.entries if entry.name.endswith("weight"))
    assert kept <= 266_200 - round(0.8 * 266_200)  # dead units may take more along
    recipe = here / "one" / "recipe.toml"
    assert 'criterion = "obs"' in recipe.read_text()
    assert compress("run", shelf / "net.pt", "--recipe", recipe, "-q", "-o", "two").code == 0
    assert (here / "one" / "net.dcz").read_bytes() == (here / "two" / "net.dcz").read_bytes()


def test_without_data_it_is_refused(compress: Compress, shelf: Path, here: Path) -> None:
    outcome = compress("run", shelf / "net.pt", "--sparsity", 0.8, "--criterion", "obs")
    assert outcome.code == 2
    assert "prune.criterion obs needs data" in outcome.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prune.sensitivity": 0.5, "prune.criterion": "obs"}, "not by sensitivity"),
        ({"prune.sparsity": 0.5, "prune.criterion": "obs", "prune.scope": "lamp"}, "lamp"),
        ({"prune.sparsity": 0.5, "prune.criterion": "l1"}, "magnitude, obs"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe().with_settings(settings)
