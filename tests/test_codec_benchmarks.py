"""The codec benchmarks' own functions: what they compare must be what they say it is.

NNCodec itself is not needed. What compares with the packages of the extra `bench` is skipped where
they are not installed.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.artifact import decode, encode
from compressor.benchmarks.codec import plot, sizes
from compressor.benchmarks.codec.accuracy import float_tensors
from compressor.benchmarks.codec.profiles import PROFILES, as_shared, as_tensors
from compressor.benchmarks.codec.rivals import textbook, tuning, worker
from compressor.benchmarks.codec.rivals.nncodec import Levels, Settings, blocks, unfolded

NORM = ("weight", "bias", "running_mean", "running_var")


def levels(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


# --- NNCodec's integers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qp", "density", "expected"),
    [
        (-24, 2, 2**-6),
        (-20, 2, 2**-5),
        (-23, 2, 1.25 * 2**-6),
        (-75, 2, 1.25 * 2**-19),
        (-8, 3, 2**-1),
        (0, 2, 1),
    ],
)
def test_steps_grow_by_quarters_of_an_octave(qp: int, density: int, expected: float) -> None:
    assert worker.step(qp, density) == np.float32(expected)


def test_levels_become_a_grid() -> None:
    shared = as_shared(levels(0, -3, 2, 2, 0, 4), np.float32(0.5))
    assert shared.codebook.tolist() == [-1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0]
    assert shared.indices.tolist() == [0, 1, 5, 5, 0, 7]
    assert shared.indices.dtype == np.uint8


def test_many_levels_take_wider_indices() -> None:
    shared = as_shared(np.arange(-200, 200, dtype=np.int32), np.float32(1))
    assert shared.indices.dtype == np.uint16
    assert np.array_equal(shared.dense(), np.arange(-200, 200, dtype=np.float32))


def test_zeros_alone_need_no_codebook() -> None:
    shared = as_shared(levels(0, 0), np.float32(1))
    assert shared.codebook.size == 0
    assert shared.dense().tolist() == [0, 0]


def test_a_network_of_levels_comes_back_from_every_profile() -> None:
    rng = np.random.default_rng(0)
    weight = Levels(rng.integers(-9, 9, (6, 4, 3, 3), dtype=np.int32), np.float32(2**-5))
    bias = Levels(levels(9_598_441, -8), np.float32(1.25 * 2**-19))
    network = {"weight": weight, "bias": bias}
    for settings in PROFILES.values():
        found = decode(encode(as_tensors(network), **settings)).tensors()
        for name, tensor in network.items():
            assert np.array_equal(found[name], tensor.levels.astype(np.float32) * tensor.step)
    assert sizes.ours_by_profile(network, {k: v.dense() for k, v in network.items()}).keys() == (
        PROFILES.keys()
    )


def test_a_size_of_other_weights_is_refused() -> None:
    network = {"weight": Levels(levels(1, 2).reshape(1, 2), np.float32(1))}
    with pytest.raises(RuntimeError, match="tensor weight is not NNCodec's"):
        sizes.ours_by_profile(network, {"weight": np.array([[1, 3]], dtype=np.float32)})


def test_mean_percentages_are_per_part_and_profile() -> None:
    def row(first: float, second: float) -> dict[str, Any]:
        return {
            "all": {"percent": dict.fromkeys(PROFILES, first)},
            "weights": {"percent": dict.fromkeys(PROFILES, second)},
        }

    found = sizes.means([row(1.0, -2.0), row(2.0, -4.0)])
    assert found == {
        "all": dict.fromkeys(PROFILES, 1.5),
        "weights": dict.fromkeys(PROFILES, -3.0),
    }


# --- batch norm -----------------------------------------------------------------------------------


def test_batch_norm_is_found_by_name() -> None:
    names = ["conv1.weight", *(f"bn1.{leaf}" for leaf in NORM)]
    names += ["layer1.0.conv2.weight", *(f"layer1.0.bn2.{leaf}" for leaf in NORM)]
    names += ["linear.weight", "linear.bias", "bn9.weight"]
    found = blocks(names)
    kinds = ["bn.gamma", "bn.beta", "bn.mean", "bn.var"]
    assert found["parameter_type"] == {
        "conv1.weight": "weight",
        **{f"bn1.{leaf}": kind for leaf, kind in zip(NORM, kinds, strict=True)},
        "layer1.0.conv2.weight": "weight",
        **{f"layer1.0.bn2.{leaf}": kind for leaf, kind in zip(NORM, kinds, strict=True)},
    }
    assert set(found["block_identifier"].values()) == {"conv1.weight", "layer1.0.conv2.weight"}


def test_folded_batch_norm_computes_what_the_original_did() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 3, 3, bias=False)
    norm = torch.nn.BatchNorm2d(3).eval()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 2, 5, 5)
    expected = norm(conv(images))

    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    decoded = {
        "conv1.weight": (conv.weight * scale[:, None, None, None]).detach().numpy(),
        "conv1.weight.bias": (norm.bias - norm.running_mean * scale).detach().numpy(),
    }
    found = {name: torch.from_numpy(value) for name, value in unfolded(decoded).items()}
    assert set(found) == {"conv1.weight", *(f"bn1.{leaf}" for leaf in NORM)}
    conv.load_state_dict({"weight": found["conv1.weight"]})
    norm.load_state_dict({leaf: found[f"bn1.{leaf}"] for leaf in NORM}, strict=False)
    assert torch.allclose(norm(conv(images)), expected, rtol=2e-5, atol=2e-5)


def test_tensors_without_batch_norm_stay_as_they_are() -> None:
    decoded = {"fc.weight": np.ones((1, 1), np.float32), "fc.bias": np.ones(1, np.float32)}
    assert unfolded(decoded) == decoded
    assert blocks(decoded) == {"parameter_type": {}, "block_identifier": {}}


# --- sweeps ---------------------------------------------------------------------------------------


def test_a_span_holds_both_ends() -> None:
    assert [*tuning.span("-22:-20")] == [-22, -21, -20]
    assert [*tuning.span("-28:-20:4")] == [-28, -24, -20]


def test_every_combination_is_run_once() -> None:
    words = ["lenet5", "x.pt", "--data", "mnist", "--environment", "e", "-o", "r.json"]
    words += ["--qp=-21:-20", "--dq", "0", "1", "--bnf", "1", "--rate", "0", "2"]
    found = [*tuning.combinations(tuning.parser().parse_args(words))]
    assert len(found) == len(set(found)) == 8
    assert {(one.qp, one.use_dq, one.lambda_scale) for one in found} == set(
        itertools.product((-21, -20), (False, True), (0.0, 2.0))
    )
    assert all(one.bnf and one.nonweight_qp == -75 for one in found)


def test_settings_are_told_by_what_is_not_default() -> None:
    assert tuning.changed(Settings(qp=-20, bnf=True)) == "qp=-20 bnf=True"


# --- the textbook format --------------------------------------------------------------------------


def test_long_gaps_take_fillers() -> None:
    indices = np.zeros(40, dtype=np.uint32)
    indices[[2, 20, 36]] = 5, 6, 7
    # 2 zeros; 17 zeros are a filler (15 skipped, one placed) and 1; 15 zeros fit in four bits.
    assert textbook.entries(indices) == ([2, 15, 1, 15], [5, 0, 6, 7])


def test_code_lengths_are_huffmans() -> None:
    code = textbook.huffman([0] * 8 + [1] * 4 + [2] * 2 + [3, 4])
    assert {symbol: len(word) for symbol, word in code.items()} == {0: 1, 1: 2, 2: 3, 3: 4, 4: 4}
    assert code == {0: "0", 1: "10", 2: "110", 3: "1110", 4: "1111"}


@given(st.lists(st.integers(0, 40), min_size=2, max_size=300))
def test_codes_are_complete_and_within_a_bit_of_the_entropy(symbols: list[int]) -> None:
    code = textbook.huffman(symbols)
    if len(code) == 1:
        assert [*code.values()] == ["0"]
        return
    assert sum(2.0 ** -len(word) for word in code.values()) == 1
    shares = [symbols.count(symbol) / len(symbols) for symbol in code]
    entropy = -sum(share * math.log2(share) for share in shares)
    bits = sum(len(code[symbol]) for symbol in symbols) / len(symbols)
    assert entropy - 1e-9 <= bits < entropy + 1


@given(st.lists(st.sampled_from([0] * 30 + [1, 2, 3, 31]), max_size=400))
def test_the_textbook_format_round_trips(drawn: list[int]) -> None:
    indices = np.array(drawn, dtype=np.uint32)
    codebook = np.linspace(-1, 1, 31, dtype=np.float32)
    table = np.concatenate([np.zeros(1, dtype=np.float32), codebook])
    assert np.array_equal(textbook.unpack(textbook.pack(indices, codebook)), table[indices])


def test_a_textbook_file_is_header_tables_codebook_and_streams() -> None:
    indices = np.array([1, 1, 1, 2], dtype=np.uint32)
    packed = textbook.pack(indices, np.array([1, 2], dtype=np.float32))
    # 16 gap lengths, 3 index lengths, 2 floats; gaps are all 0 and take no bits; 4 bits of indices.
    assert len(packed) == 16 + 16 + 3 + 8 + 0 + 1


def test_sharing_keeps_zeros_and_few_values_as_they_are() -> None:
    weights = np.array([[0, 0.5, -1], [0.5, 0, 2]], dtype=np.float32)
    indices, codebook = textbook.share(weights, 2)
    assert codebook.tolist() == [-1, 0.5, 2]
    assert indices.tolist() == [[0, 2, 1], [2, 0, 3]]


# --- simple methods and other coders --------------------------------------------------------------


def small_network() -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    weight = rng.laplace(0, 0.05, (8, 4, 3, 3)).astype(np.float32)
    weight[2] = 0
    return {"conv.weight": weight, "conv.bias": rng.standard_normal(8).astype(np.float32)}


def test_simple_methods_store_what_they_decode_to() -> None:
    pytest.importorskip("zstandard", reason="the extra `bench` is not installed")
    from compressor.benchmarks.codec.rivals.general import METHODS

    network = small_network()
    size = {}
    for name, method in METHODS.items():
        size[name], found = method(network)
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in network.items()}
        assert {v.dtype for v in found.values()} == {np.dtype(np.float32)}
        error = np.abs(found["conv.weight"] - network["conv.weight"]).max()
        assert error <= (0 if name == "fp32" else 0.2)
        assert (found["conv.weight"][2] == 0).all()
    header = size["fp32"] - 4 * 296
    assert size["fp16"] == pytest.approx(header + 2 * 296, abs=8)
    assert size["INT8 per channel"] > 288 + 4 * 8 + 4 * 8


def test_int8_errs_by_half_a_step_at_most() -> None:
    pytest.importorskip("zstandard", reason="the extra `bench` is not installed")
    from compressor.benchmarks.codec.rivals.general import int8

    network = small_network()
    weight, found = network["conv.weight"], int8(network)[1]["conv.weight"]
    steps = np.abs(weight).reshape(8, -1).max(axis=1) / 127
    errors = np.abs(weight - found).reshape(8, -1).max(axis=1)
    assert (errors <= steps * 0.5001).all()


def test_every_coder_gives_both_tensors_back() -> None:
    for package in ("bitarray", "constriction", "zstandard"):
        pytest.importorskip(package, reason="the extra `bench` is not installed")
    from compressor.benchmarks.codec import speed
    from compressor.benchmarks.codec.rivals import coders

    kinds: list[coders.Coder] = [coders.Ours(*profile) for profile in PROFILES.items()]
    kinds.append(coders.Ours("fast", PROFILES["fast"], backend="numpy", threads=2))
    assert kinds[-1].name == "ours, fast, numpy, 2 threads"
    kinds += [coders.ZstdHalf(1), coders.ZstdIndices(19), coders.Constriction()]
    kinds += [coders.Bitarray(), coders.Naive()]
    for name, network in speed.tensors(8000).items():
        values = network["weight"].levels
        assert values.shape == (4, 2000)
        assert np.abs(values).max() == coders.LARGEST
        assert (values == 0).mean() == pytest.approx(0.9 if "pruned" in name else 0.15, abs=0.05)
        rows = speed.measured(name, network, kinds, rounds=1)
        assert [row["weights"] for row in rows] == [8000] * len(kinds)
        assert all(row["bytes"] < 4 * 8000 for row in rows)


def test_a_coder_that_gives_other_weights_is_refused() -> None:
    for package in ("bitarray", "constriction", "zstandard"):
        pytest.importorskip(package, reason="the extra `bench` is not installed")
    from compressor.benchmarks.codec.rivals.coders import ZstdHalf

    coder = ZstdHalf(1)
    coder.load({"weight": Levels(levels(1, 2).reshape(1, 2), np.float32(2**-5))})
    coder.encode()
    coder.decode()
    with pytest.raises(RuntimeError, match="does not give weight back"):
        coder.check({"weight": Levels(levels(1, 3).reshape(1, 2), np.float32(2**-5))})


def test_a_ratio_is_the_median_over_rounds() -> None:
    for package in ("bitarray", "constriction", "zstandard"):
        pytest.importorskip(package, reason="the extra `bench` is not installed")
    from compressor.benchmarks.codec.speed import ratio

    assert ratio([4.0, 30.0, 8.0], [2.0, 3.0, 2.0]) == 4.0


# --- curves ---------------------------------------------------------------------------------------


def row(method: str, size: int, accuracy: float) -> dict[str, Any]:
    key = {"network": "lenet5", "method": method, "bytes": size}
    return {**key, "accuracy": accuracy, "images": 10_000}


ROWS = [
    row("fp32", 4000, 99.0),
    row("ours", 100, 98.0),
    row("ours", 120, 97.5),
    row("ours", 150, 98.9),
    row("ours", 200, 98.95),
    row("textbook, 3 bits", 300, 98.7),
    row("textbook, 4 bits", 400, 98.95),
]


def test_a_frontier_leaves_out_what_is_larger_and_no_better() -> None:
    found = plot.frontier(ROWS[1:5])
    assert [one["bytes"] for one in found] == [100, 150, 200]


def test_settings_in_a_methods_name_are_one_curve() -> None:
    assert {name: len(found) for name, found in plot.curves(ROWS).items()} == {
        "fp32": 1,
        "ours": 3,
        "textbook": 2,
    }


def test_the_smallest_file_within_a_drop_is_found() -> None:
    assert plot.smallest(ROWS, [0.1, 0.02]) == [
        "within 0.1 points of 99.00 %",
        "  fp32                         4,000 B  99.00 %",
        "  ours                         150 B  98.90 %",
        "  textbook                     400 B  98.95 %",
        "within 0.02 points of 99.00 %",
        "  fp32                         4,000 B  99.00 %",
        "  ours                         -",
        "  textbook                     -",
    ]


def test_rows_are_drawn(tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text(json.dumps({"rows": ROWS}))
    for name in ("once.svg", "again.svg"):
        plot.main([str(source), "--network", "lenet5", "-o", str(tmp_path / name)])
    drawn = (tmp_path / "once.svg").read_bytes()
    assert drawn.startswith(b"<?xml")
    assert drawn == (tmp_path / "again.svg").read_bytes()


def test_no_row_of_the_network_is_said(tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text(json.dumps({"rows": ROWS}))
    with pytest.raises(SystemExit, match="no row of vgg"):
        plot.main([str(source), "--network", "vgg", "-o", str(tmp_path / "x.svg")])


def test_tensors_are_read_without_counters(tmp_path: Path) -> None:
    weight, count = torch.full((2, 2), 0.1, dtype=torch.float64), torch.tensor(7)
    state = {"module.conv.weight": weight, "module.bn.num_batches_tracked": count}
    torch.save({"state_dict": state}, tmp_path / "net.pt")
    found = float_tensors(tmp_path / "net.pt")
    assert [*found] == ["conv.weight"]
    assert found["conv.weight"].dtype == np.float32

    (tmp_path / "net.dcz").write_bytes(encode(found))
    assert np.array_equal(float_tensors(tmp_path / "net.dcz")["conv.weight"], found["conv.weight"])
