"""Every operator that channel pruning knows, cut at random and compared with the zeroed network.

The oracle is the network's own class in float64: removed slices of its parameters and statistics
are set to zero by hand and its own ``forward`` runs. Norms over channels, which would count the
zeros, take their statistics over what is left in a few lines written here.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.channels import rewriting
from compressor.channels.cutting import Cut, cut
from compressor.channels.dependencies import Dependencies, Keep
from compressor.channels.proof import prove
from compressor.channels.removal import remove
from compressor.errors import StageError
from tests import channel_networks as small

TOLERANCE = 1e-9


def build(kind: type[nn.Module]) -> nn.Module:
    module = kind().eval()
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, nn.BatchNorm2d):
                each.running_mean.normal_()
                each.running_var.uniform_(0.5, 1.5)
            if isinstance(each, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
                each.weight.uniform_(0.5, 1.5)
                each.bias.normal_()
            if isinstance(each, nn.PReLU):
                each.weight.uniform_(0.1, 0.9)
    return module


def analysed(module: nn.Module) -> Dependencies:
    return Dependencies(module, torch.zeros(1, *module.shape))


def chosen(dependencies: Dependencies, ratio: float, seed: int = 0) -> np.ndarray:
    """Of every group a random part, never all of it."""
    draw = np.random.default_rng(seed)
    gone = [
        draw.choice(group.classes, min(len(group.classes) - 1, round(ratio * len(group.classes))))
        for group in dependencies.groups
    ]
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *gone]))


def cut_at(module: nn.Module, dependencies: Dependencies, removed: np.ndarray) -> Cut:
    return cut(module, torch.zeros(1, *module.shape), dependencies, removed)


class NormOfLeft(nn.Module):
    """Layer or group norm of the channels that are left; what is removed gives zero."""

    def __init__(self, norm: nn.LayerNorm | nn.GroupNorm, keep: np.ndarray) -> None:
        super().__init__()
        self.norm, self.keep = norm, torch.from_numpy(np.flatnonzero(keep))

    def forward(self, x: Tensor) -> Tensor:
        axis = -1 if isinstance(self.norm, nn.LayerNorm) else 1
        few = x.index_select(axis, self.keep)
        weight, bias = self.norm.weight[self.keep], self.norm.bias[self.keep]
        if axis == -1:
            done = nn.functional.layer_norm(few, (len(weight),), weight, bias, self.norm.eps)
        else:
            done = nn.functional.group_norm(few, self.norm.num_groups, weight, bias, self.norm.eps)
        return torch.zeros_like(x).index_copy(axis, self.keep, done)


class ResponseOfLeft(nn.Module):
    """Response normalisation whose mean is over the channels that are left."""

    def __init__(self, norm: small.Response, keep: np.ndarray) -> None:
        super().__init__()
        self.norm, self.keep = norm, torch.from_numpy(np.flatnonzero(keep))

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().mean((2, 3), keepdim=True).sqrt()
        mean = size.index_select(1, self.keep).mean(1, keepdim=True)
        return x + self.norm.bias + self.norm.weight * x * size / (mean + 1e-6)


def zeroed(module: nn.Module, keep: Keep) -> nn.Module:
    """A copy in float64 with what ``keep`` does not name zeroed."""
    module = copy.deepcopy(module).double()
    tensors = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    for (name, axis), kept in keep.items():
        shape = [-1 if at == axis else 1 for at in range(tensors[name].ndim)]
        tensors[name].data.mul_(torch.from_numpy(kept.copy()).reshape(shape))
    for name, each in list(module.named_children()):
        if isinstance(each, nn.LayerNorm | nn.GroupNorm) and (f"{name}.weight", 0) in keep:
            setattr(module, name, NormOfLeft(each, keep[f"{name}.weight", 0]))
        if isinstance(each, small.Response):
            setattr(module, name, ResponseOfLeft(each, keep[f"{name}.weight", 1]))
    return module


def difference(module: nn.Module, made: nn.Module, keep: Keep) -> float:
    x = torch.randn(3, *module.shape, dtype=torch.float64)
    with torch.no_grad():
        expected = zeroed(module, keep)(x)
        found = copy.deepcopy(made).double()(x)
    assert expected.abs().max() > 1e-3
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


# Per network: the classes of every group, and whether its own class runs with fewer channels.
PRUNABLE = [
    (small.Network, {"stem": [16]}, True),
    (small.Residual, {"stem": [16], "one": [24]}, True),
    (small.PaddedShortcut, {"stem": [16], "one": [16]}, False),
    (small.Concat, {"stem": [16], "one": [8], "two": [16]}, True),
    (small.Split, {"stem": [16], "one": [8, 32], "two": [16]}, False),
    (small.Chunk, {"stem": [16], "one": [24], "two": [16]}, True),
    (small.Slices, {"stem": [16], "one": [32], "two": [16]}, False),
    (small.Shuffle, {"stem": [16], "two": [16]}, True),
    (small.FewGroups, {"stem": [8], "one": [16], "two": [16]}, True),
    (small.ManyGroups, {"stem": [16], "one": [16]}, True),
    (small.Depthwise, {"stem": [16]}, True),
    (small.SqueezeExcite, {"stem": [16], "one": [8]}, True),
    (small.SqueezeExciteLinear, {"stem": [16], "one": [8]}, True),
    (small.Flatten, {"stem": [16], "one": [12]}, True),
    (small.LayerNorms, {"stem": [16]}, True),
    (small.GroupNorms, {"stem": [4], "one": [16]}, True),
    (small.ResponseNorm, {"stem": [16], "one": [16]}, True),
    (small.Prelu, {"stem": [16], "one": [16]}, True),
    (small.Transposed, {"stem": [16], "one": [24]}, True),
    (small.InPlaceOnView, {"stem": [16], "one": [16], "two": [16]}, False),
    (small.CalledTwice, {"stem": [16]}, True),
    (small.LayerScale, {"stem": [16]}, True),
    (small.Upsampled, {"stem": [16]}, True),
    (small.Selective, {"stem": [16], "one": [16], "fold": [8]}, False),
    (small.Attention, {"stem": [16], "qkv": [16]}, False),
    (small.MatmulAttention, {"stem": [16], "qkv": [16]}, False),
    (small.Embeddings, {"words": [16], "one": [24]}, True),
    (small.PixelShuffled, {"stem": [4]}, True),
]


@pytest.mark.parametrize(("kind", "groups", "own"), PRUNABLE, ids=lambda each: _id(each))
def test_a_cut_computes_what_the_zeroed_network_computes(kind, groups, own):
    module = build(kind)
    dependencies = analysed(module)
    found: dict[str, list[int]] = {}
    for group in dependencies.groups:
        found.setdefault(group.name, []).append(len(group.classes))
    assert found == groups
    assert [row["layer"] for row in dependencies.frozen()] == ["head"]
    for seed, ratio in enumerate((0.3, 0.5, 0.8)):
        removed = chosen(dependencies, ratio, seed)
        keep = dependencies.keep(removed)
        made = cut_at(module, dependencies, removed)
        assert difference(module, made.module, keep) < TOLERANCE
    assert made.rewritten is not own
    assert _parameters(made.module) < _parameters(module)


@pytest.mark.parametrize(
    ("kind", "frozen"),
    [
        (small.Unknown, {"one": "cumsum", "head": "the network's output"}),
        (small.Sorted, {"stem": "sort", "head": "the network's output"}),
        (
            small.WeightUsedTwice,
            {"stem": "conv2d", "one": "conv2d", "head": "the network's output"},
        ),
    ],
    ids=lambda each: _id(each),
)
def test_what_is_not_understood_freezes_what_it_touches_and_is_named(kind, frozen):
    dependencies = analysed(build(kind))
    assert {row["layer"]: row["reason"] for row in dependencies.frozen()} == frozen
    assert all(row["channels"] == row["of"] for row in dependencies.frozen())
    touched = {name for name, reason in frozen.items() if name != "head"}
    assert not touched & {layer for group in dependencies.groups for layer in group.layers}


def test_an_unknown_operator_leaves_the_rest_prunable():
    module = build(small.Unknown)
    dependencies = analysed(module)
    assert dependencies.graph.unknown == {"cumsum": 1}
    removed = chosen(dependencies, 0.5)
    made = cut_at(module, dependencies, removed)
    assert difference(module, made.module, dependencies.keep(removed)) < TOLERANCE
    assert made.module.stem.out_channels < 16
    assert made.module.one.out_channels == 16


def test_residual_sums_can_be_frozen():
    module = build(small.Residual)
    example = torch.zeros(1, *module.shape)
    dependencies = Dependencies(module, example, freeze_residual=True)
    assert [group.layers for group in dependencies.groups] == [("one",)]
    reasons = {row["layer"]: row["reason"] for row in dependencies.frozen()}
    assert reasons["stem"] == reasons["two"] == "add in --freeze-residual"


def test_layers_that_a_sum_joins_are_one_group():
    (stem, one) = analysed(build(small.Residual)).groups
    assert stem.layers == ("stem", "two")
    assert one.layers == ("one",)


@pytest.mark.parametrize(
    ("kind", "widths"),
    [(small.FewGroups, [2, 2, 1]), (small.ManyGroups, [1, 3]), (small.GroupNorms, [4, 1])],
)
def test_a_group_says_how_many_channels_a_class_has(kind, widths):
    """Few groups lose channels inside each, 2 at once; many lose whole groups, of 2 in, 3 out."""
    assert [group.width for group in analysed(build(kind)).groups] == widths


def test_many_groups_lose_whole_groups_and_few_keep_their_number():
    for kind, layer, groups, channels in (
        (small.ManyGroups, "two", 8, 24),
        (small.FewGroups, "one", 2, 16),
    ):
        module = build(kind)
        dependencies = analysed(module)
        (group,) = [each for each in dependencies.groups if layer in each.layers]
        made = cut_at(module, dependencies, group.classes[::2])
        convolution = getattr(made.module, layer)
        assert (convolution.groups, convolution.out_channels) == (groups, channels)


def test_a_tampered_mask_is_refused():
    """The small network lacks another channel than the analysis says."""
    module = build(small.Residual)
    dependencies = analysed(module)
    removed = chosen(dependencies, 0.5)
    keep = {key: each.copy() for key, each in dependencies.keep(removed).items()}
    keep["stem.weight", 0] = np.roll(keep["stem.weight", 0], 1)
    made, example = copy.deepcopy(module), torch.randn(2, *module.shape)
    remove(made, keep)
    with pytest.raises(StageError, match="differs from the masked one"):
        prove(module, made, dependencies, removed, example)


def test_a_wrong_scale_of_attention_is_refused(monkeypatch):
    """Attention's default scale follows the width that is left, which is not what was trained."""
    module = build(small.Attention)
    dependencies = analysed(module)
    removed = chosen(dependencies, 0.5)
    assert cut_at(module, dependencies, removed).proof.difference < TOLERANCE
    monkeypatch.setattr(rewriting._Solver, "_scaled_dot_product_attention", lambda *_: None)
    with pytest.raises(StageError, match="differs from the masked one"):
        cut_at(module, dependencies, removed)


def test_a_masked_network_of_nans_proves_nothing():
    module = build(small.Network)
    dependencies = analysed(module)
    removed = chosen(dependencies, 0.5)
    with torch.no_grad():
        module.head.bias.fill_(float("nan"))
    with pytest.raises(StageError):
        cut_at(module, dependencies, removed)


def test_zeros_prove_nothing():
    module = build(small.Network)
    dependencies = analysed(module)
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias.zero_()
    with pytest.raises(StageError, match="nothing but zeros"):
        cut_at(module, dependencies, chosen(dependencies, 0.5))


def _parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _id(each):
    return each.__name__ if isinstance(each, type) else ""
