"""What is stored is what is evaluated: between torch and the artifact, bit for bit."""

import copy
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor import artifact
from compressor.artifact import Shared
from compressor.layers import compressible_layers, mask_layer, share_layer, shared_of
from compressor.models import get
from compressor.network import Network
from compressor.storage import load_decoded, on_grid, plain_state, rounded, stored_tensors

Floats = NDArray[np.float32]


class Small(nn.Module):
    """Convolutions of three kinds, batch norm in 2-D and 1-D, on (B, 2, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.fc = nn.Linear(3, 5)
        self.last = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depthwise(self.norm(self.conv(x)).relu()))
        logits: Tensor = self.last(self.fc(x.mean((2, 3))))
        return logits


def resnet20() -> nn.Module:
    return get("resnet20").build()


def compress(module: nn.Module) -> None:
    """One layer masked, the next shared, the next left dense, and so on; norms have a past."""
    for number, layer in enumerate(compressible_layers(module).values()):
        if number % 3 == 0:
            mask_layer(layer, torch.rand(layer.weight.shape) < 0.5)
        elif number % 3 == 1:
            indices = torch.randint(0, 9, layer.weight.shape, dtype=torch.int32)
            share_layer(layer, indices, torch.randn(8))
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)


def prepared(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Network:
    module = build().eval()
    network = Network(module, torch.zeros(1, *shape), "net", "net")
    compress(module)
    return network


def half(value: float) -> float:
    """Rounded to float16 by the standard library."""
    result: float = struct.unpack("<e", struct.pack("<e", value))[0]
    return result


def halves(values: NDArray[Any]) -> Floats:
    return np.array([half(v) for v in values.ravel().tolist()], np.float32).reshape(values.shape)


def same_bits(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return (found.dtype, found.shape, found.tobytes()) == (
        expected.dtype,
        expected.shape,
        expected.tobytes(),
    )


NETWORKS = pytest.mark.parametrize(
    ("build", "shape"), [(Small, (2, 6, 6)), (resnet20, (3, 32, 32))], ids=["small", "resnet20"]
)
WIDTHS = pytest.mark.parametrize("width", ["fp16", "fp32"])

# ---- the promise -------------------------------------------------------------------------------


@NETWORKS
@WIDTHS
@pytest.mark.parametrize("profile", ["huffman", "flat"])
def test_what_decodes_is_what_is_evaluated(
    build: Callable[[], nn.Module], shape: tuple[int, ...], width: str, profile: artifact.Profile
) -> None:
    """The network that is evaluated, one built from nothing, and the stored values agree."""
    network = prepared(build, shape)
    blob = artifact.encode(stored_tensors(network, width), profile=profile)
    decoded = artifact.decode(blob).tensors()
    load_decoded(network.module, lambda: decoded)
    x = torch.randn(2, *shape)
    evaluated = network.module.eval()(x)

    fresh = build()
    state = {name: torch.from_numpy(value.copy()) for name, value in decoded.items()}
    fresh.load_state_dict(state, strict=True)
    assert torch.equal(fresh.eval()(x), evaluated)
    for name, value in network.module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert same_bits(decoded[name], value.numpy())


@NETWORKS
@WIDTHS
def test_values_are_kept_but_for_the_width_of_vectors(
    build: Callable[[], nn.Module], shape: tuple[int, ...], width: str
) -> None:
    network = prepared(build, shape)
    plain = plain_state(network.module)
    layers = compressible_layers(network.module)
    pairs = {f"{n}.weight": pair for n, layer in layers.items() if (pair := shared_of(layer))}
    narrow: Callable[[NDArray[Any]], Floats] = halves if width == "fp16" else np.array
    decoded = artifact.decode(artifact.encode(stored_tensors(network, width))).tensors()
    for name, found in decoded.items():
        if name in pairs:
            indices, codebook = pairs[name]
            expected = np.concatenate([np.zeros(1, np.float32), narrow(codebook)])[indices]
        elif plain[name].ndim == 1:
            expected = narrow(plain[name])
        else:
            expected = plain[name]
        assert same_bits(found, expected), name


@NETWORKS
def test_names_and_order_are_those_of_the_plain_network(
    build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    expected = [n for n in build().state_dict() if not n.endswith("num_batches_tracked")]
    network = prepared(build, shape)
    stored = stored_tensors(network, "fp16")
    assert list(stored) == expected
    assert list(artifact.decode(artifact.encode(stored)).tensors()) == expected


def test_storing_changes_neither_the_network_nor_what_it_computes() -> None:
    network = prepared(Small, (2, 6, 6))
    x = torch.randn(2, 2, 6, 6)
    before = network.module(x)
    state = copy.deepcopy(network.module.state_dict())
    stored_tensors(network, "fp16")
    assert torch.equal(network.module(x), before)
    for name, value in network.module.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(("size", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_indices_take_the_smallest_type(size: int, dtype: type) -> None:
    module = nn.Sequential(nn.Linear(300, 300))
    network = Network(module, torch.zeros(1, 300), "net", "net")
    indices = (torch.arange(90_000, dtype=torch.int32) % (size + 1)).view(300, 300)
    share_layer(compressible_layers(module)["0"], indices, torch.randn(size))
    stored = stored_tensors(network, "fp32")["0.weight"]
    assert isinstance(stored, Shared)
    assert stored.indices.dtype == dtype
    np.testing.assert_array_equal(stored.indices, indices.numpy())


def test_a_layer_under_two_names_is_stored_alike_under_both() -> None:
    def build() -> nn.Module:
        module = nn.Sequential()
        module.first = nn.Linear(4, 4)
        module.second = module.first
        return module

    network = prepared(build, (4,))
    share_layer(
        compressible_layers(network.module)["first"],
        torch.randint(0, 4, (4, 4), dtype=torch.int32),
        torch.randn(3) / 3,
    )
    decoded = artifact.decode(artifact.encode(stored_tensors(network, "fp16"))).tensors()
    assert list(decoded) == ["first.weight", "first.bias", "second.weight", "second.bias"]
    load_decoded(network.module, lambda: decoded)
    assert same_bits(decoded["first.weight"], decoded["second.weight"])
    assert same_bits(
        decoded["first.weight"], network.module.get_parameter("first.weight").numpy(force=True)
    )


def test_the_plain_state_under_first_names_only() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    module.again = module[0]
    assert list(plain_state(module)) == ["0.weight", "0.bias", "again.weight", "again.bias"]
    assert list(plain_state(module, every_name=False)) == ["0.weight", "0.bias"]


def test_the_plain_state_has_what_the_network_computes_with() -> None:
    network = prepared(Small, (2, 6, 6))
    plain = plain_state(network.module)
    fresh = Small()
    fresh.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in plain.items()})
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(fresh.eval()(x), network.module(x))


def test_loading_takes_masks_and_codebooks_off() -> None:
    network = prepared(Small, (2, 6, 6))
    load_decoded(network.module, lambda: plain_state(network.module))
    assert list(network.module.state_dict()) == list(Small().state_dict())


# ---- rounding ----------------------------------------------------------------------------------

MAX_HALF = (2 - 2**-10) * 2**15  # 65504


@given(
    hnp.arrays(
        np.float32,
        st.integers(0, 20),
        elements=st.floats(-MAX_HALF, MAX_HALF, width=32) | st.floats(-(2**-13), 2**-13, width=32),
    )
)
def test_rounding_is_to_the_nearest_half(values: Floats) -> None:
    found = rounded(values, "fp16")
    assert same_bits(found, halves(values))
    assert same_bits(rounded(found, "fp16"), found), "what is rounded stays"


@pytest.mark.parametrize("size", [65505.0, 65519.0, 65520.0, 1e5, -7e4, 3e38])
def test_a_vector_too_large_for_half_stays_as_it_is(size: float) -> None:
    values = np.array([0.1, size, -1 / 3], dtype=np.float32)
    assert same_bits(rounded(values, "fp16"), values)


def test_the_largest_half_is_still_rounded() -> None:
    values = np.array([0.1, MAX_HALF, -MAX_HALF], dtype=np.float32)
    assert same_bits(rounded(values, "fp16"), halves(values))
    assert rounded(values, "fp16")[0] != values[0]


def test_one_large_vector_does_not_keep_others_from_being_rounded() -> None:
    network = prepared(Small, (2, 6, 6))
    with torch.no_grad():
        network.module.get_parameter("fc.bias")[2] = 1e6
    before = plain_state(network.module)
    stored = stored_tensors(network, "fp16")
    for name, expected in (
        ("fc.bias", np.array(before["fc.bias"])),
        ("last.bias", halves(before["last.bias"])),
    ):
        found = stored[name]
        assert isinstance(found, np.ndarray)
        assert same_bits(found, expected)


def test_codebooks_too_large_for_half_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(3, 1))
    network = Network(module, torch.zeros(1, 3), "net", "net")
    codebook = torch.tensor([0.1, 1e5])
    share_layer(compressible_layers(module)["0"], torch.tensor([[1, 2, 0]]), codebook)
    stored = stored_tensors(network, "fp16")["0.weight"]
    assert isinstance(stored, Shared)
    assert same_bits(stored.codebook, np.array([0.1, 1e5], dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_, np.float16])
def test_only_float32_is_rounded(dtype: type) -> None:
    values: NDArray[Any] = np.array([1, 0, 1], dtype=dtype)
    assert same_bits(rounded(values, "fp16"), values)
    wide = np.array([0.1], dtype=np.float64)
    assert same_bits(rounded(wide, "fp16"), wide)


def test_single_numbers_count_as_vectors() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.1))

    network = Network(Scaled(), torch.zeros(1, 1), "net", "net")
    stored = stored_tensors(network, "fp16")["scale"]
    assert isinstance(stored, np.ndarray)
    assert same_bits(stored, np.array(half(float(np.float32(0.1))), dtype=np.float32))


# ---- biases on a grid ----------------------------------------------------------------------------


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-8, 8, width=16)),
    st.integers(2, 12),
)
def test_biases_are_multiples_of_a_step_within_half_of_it(values: Floats, bits: int) -> None:
    found = on_grid(values, bits)
    most = 2 ** (bits - 1) - 1
    step = float(np.abs(values).max()) / most
    assert np.abs(found - values).max() <= 0.5 * step * (1 + 2**-10)
    assert len(np.unique(found)) <= 2 * most + 1
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_the_file_packs_biases_of_so_many_bits(bits: int) -> None:
    module = nn.Sequential(nn.Linear(5, 400), nn.ReLU(), nn.Linear(400, 3))
    network = Network(module, torch.zeros(1, 5), "net", "net")
    stored = stored_tensors(network, "fp16", bits)
    decoded = artifact.decode(artifact.encode(stored, profile="best"))
    (entry,) = (each for each in decoded.entries if each.name == "0.bias")
    assert entry.mode == artifact.Mode.PACKED
    assert entry.bytes <= 400 * bits // 8 + 8
    tensors = decoded.tensors()
    np.testing.assert_array_equal(tensors["0.bias"], stored["0.bias"])
    load_decoded(module, lambda: tensors)
    np.testing.assert_array_equal(plain_state(module)["0.bias"], tensors["0.bias"])


def test_norms_and_codebooks_keep_their_width() -> None:
    module = Small()
    network = Network(module, torch.zeros(1, 2, 6, 6), "small", "Small")
    plain, coarse = (stored_tensors(network, "fp32", bits) for bits in (0, 3))
    changed = {n for n in plain if not np.array_equal(plain[n], coarse[n])}  # type: ignore[arg-type]
    assert changed == {"depthwise.bias", "up.bias", "fc.bias"}
