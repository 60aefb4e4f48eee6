"""The layouts that people have: the essential ones of `docs/layouts.md`, each found and loaded."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compressor import loading
from compressor.errors import LoadError
from compressor.models import registry


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(registry.get("lenet-300-100").build().state_dict())


def named(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, ""),
        ("net", "module."),
        ("model", "_orig_mod."),
        ("state_dict", "model."),  # Lightning
        ("state_dict", "net.model."),
        ("model_state_dict", "module._orig_mod."),
    ],
)
def test_names_with_an_owner_in_front(
    state: dict[str, torch.Tensor], here: Path, wrapper: str | None, prefix: str
) -> None:
    content = named(state, prefix)
    torch.save(content if wrapper is None else {wrapper: content, "epoch": 3}, here / "net.ckpt")
    arch = "lenet-300-100" if prefix == "net.model." else None
    network = loading.load(here / "net.ckpt", arch=arch)
    assert network.arch == "lenet-300-100"
    for name, value in network.module.state_dict().items():
        assert torch.equal(value, state[name])


def test_an_owner_stays_where_the_network_itself_has_it(here: Path) -> None:
    """A class whose only part is called ``model`` has these very names."""
    (here / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    input_shape = (1, 2, 2)\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
        "    def forward(self, x):\n"
        "        return self.model(x)\n"
    )
    weights = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).state_dict()
    torch.save(named(weights, "model."), here / "net.pt")
    network = loading.load(here / "net.pt", arch="mine.py:Net")
    assert torch.equal(network.module.state_dict()["model.1.weight"], weights["1.weight"])


def test_what_no_prefix_explains_is_still_refused_by_its_own_names(
    state: dict[str, torch.Tensor], here: Path
) -> None:
    torch.save(named(state, "model.") | {"model.more": torch.zeros(2)}, here / "net.pt")
    with pytest.raises(LoadError, match="these weights"):
        loading.load(here / "net.pt")
    with pytest.raises(LoadError, match="does not fit lenet-300-100"):
        loading.load(here / "net.pt", arch="lenet-300-100")
