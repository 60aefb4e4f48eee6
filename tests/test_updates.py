"""Updates: the new file byte for byte, or an error; small where little changed."""

import contextlib
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from compressor.artifact import Limits, Mode, Shared, decode, encode
from compressor.artifact.layout import parse_directory
from compressor.coding import residuals
from compressor.coding.arithmetic import BitDecoder, BitEncoder
from compressor.coding.residuals import Residuals
from compressor.errors import ArtifactError
from compressor.updates import diff, layout, patch
from tests.conftest import Compress
from tests.fuzz.artifacts import artifacts, in_segments, network, preferring, whole
from tests.fuzz.mutations import mutated

LIMITS = Limits(1 << 20, 1 << 20, 100, 1 << 16)


def weights(seed: int, shape: tuple[int, ...] = (60, 200)) -> Shared:
    """A pruned layer of 15 shared values."""
    rng = np.random.default_rng(seed)
    levels = np.rint(rng.laplace(0, 2.5, shape)).clip(-7, 7).astype(int)
    levels[rng.random(shape) < 0.8] = 0
    indices = np.where(levels, levels + np.where(levels < 0, 8, 7), 0).astype(np.uint8)
    book = np.delete(np.linspace(-1, 1, 15), 7).astype(np.float16).astype(np.float32)
    return Shared(indices, book)


def tuned(base: Shared, seed: int, moved: float) -> Shared:
    """The same mask; a fraction of the weights one centroid further, and all centroids moved."""
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(base.indices.shape) < moved, rng.choice([-1, 1]), 0)
    kept = base.indices.astype(int)
    k = len(base.codebook)
    indices = np.where(kept, (kept + step).clip(1, k), 0).astype(base.indices.dtype)
    book = (base.codebook * (1 + 0.01 * rng.normal(size=k))).astype(np.float16)
    return Shared(indices, np.sort(book.astype(np.float32)))


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """A network and what fine-tuning might make of it."""
    rng = np.random.default_rng(5)
    bias = rng.normal(size=60).astype(np.float16).astype(np.float32)
    after = (bias * 1.01).astype(np.float16).astype(np.float32)
    base = weights(0)
    about = {"network": "a", "notes": "text " * 20}
    graph = bytes(range(256)) * 4
    return tuple(  # type: ignore[return-value]
        encode(tensors, graph=graph, metadata=about, profile="best")
        for tensors in (
            {"fc.weight": base, "fc.bias": bias, "steps": np.array(700)},
            {"fc.weight": tuned(base, 1, 0.1), "fc.bias": after, "steps": np.array(800)},
        )
    )


def test_a_fine_tuned_network_takes_a_fraction_of_its_artifact(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    update = diff(old, new)
    assert patch(old, update) == new
    # A tenth of 2,400 weights moved, all by one to the same side: at most the entropy of that, 0.47
    # bit, and a tenth more for learning it; 74 float16 that moved by 1 % of a mantissa of 11 bits.
    assert len(update) < 2400 * 0.47 / 8 * 1.1 + 74 * 1.5 + 350
    assert len(update) < 0.35 * len(new)


def test_the_same_file_takes_a_few_bytes(pair: tuple[bytes, bytes]) -> None:
    update = diff(pair[0], pair[0])
    assert len(update) < 64
    assert patch(pair[0], update) == pair[0]


def test_every_mode_goes_into_every_other_and_back() -> None:
    """Files of one tensor in each mode, and of several: whatever is not alike is taken as it is."""
    with in_segments():
        files = [each.blob for each in artifacts()]
        for old in files:
            for new in files:
                update = diff(old, new)
                assert patch(old, update) == new
                assert len(update) < len(new) + 100


@pytest.mark.parametrize(
    "mode", [Mode.GAP_SHARED, Mode.GAP_RANS, Mode.DENSE_RANS, Mode.CONTEXT], ids=lambda m: m.name
)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in segments"])
def test_streams_of_every_shared_mode_follow_from_the_indices(mode: Mode, cut: bool) -> None:
    base = weights(0, (20, 30))
    profile = {Mode.GAP_SHARED: "huffman", Mode.CONTEXT: "best"}.get(mode, "fast")
    with in_segments() if cut else mock.MagicMock(), preferring(mode):
        old = encode({"w": base}, profile="fast")
        new = encode({"w": tuned(base, 1, 0.05)}, profile=profile)  # type: ignore[arg-type]
        assert decode(new).entries[0].mode is mode
        update = diff(old, new)
        assert layout.Way.LEVELS in ways(old, update)
        assert patch(old, update) == new


def ways(old: bytes, update: bytes) -> list[layout.Way]:
    base = decode(old)
    _, reader = layout.parse_file(memoryview(update))
    directory = layout.read_directory(reader, base)
    _, records = parse_directory(directory, Limits())
    layout.read_graph(reader, base, Limits())
    return layout.read_ways(reader, records)


def test_weights_that_come_back_and_weights_that_go() -> None:
    base = weights(0)
    indices = base.indices.copy()
    indices[0, :50] = 3
    indices[5] = 0
    old, new = (
        encode({"w": each}, profile="best") for each in (base, Shared(indices, base.codebook))
    )
    update = diff(old, new)
    assert patch(old, update) == new
    assert len(update) < len(new) / 2


def test_another_network_takes_no_more_than_its_artifact() -> None:
    old, new = whole(seed=0), whole(seed=1)
    update = diff(old, new)
    assert patch(old, update) == new
    assert len(update) < len(new) + 100


def test_with_and_without_a_graph() -> None:
    with_graph, without = encode(network(), graph=b"nodes " * 40), encode(network())
    for old, new in ((with_graph, without), (without, with_graph)):
        update = diff(old, new)
        assert patch(old, update) == new
        assert len(update) < 200


def test_numpy_and_c_make_the_same_update(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = diff(*pair)
    monkeypatch.setenv("COMPRESS_BACKEND", "numpy")
    assert diff(*pair) == update
    assert patch(pair[0], update) == pair[1]


def test_the_golden_update_is_made_and_applied_byte_for_byte() -> None:
    golden = Path(__file__).parent / "golden" / "update"
    old, new, update = (
        (golden / name).read_bytes() for name in ("old.dcz", "new.dcz", "update.dczd")
    )
    assert set(ways(old, update)) == set(layout.Way)
    assert patch(old, update) == new
    assert diff(old, new) == update


def test_the_wrong_base_is_refused(pair: tuple[bytes, bytes]) -> None:
    update = diff(*pair)
    for other in (pair[1], pair[0][:-1], b"", whole()):
        with pytest.raises(ArtifactError, match=r"x\.dczd is not for y\.dcz: it was made for"):
            patch(other, update, names=("y.dcz", "x.dczd"))


def test_damage_is_found(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    update, other = diff(old, new), diff(new, old)
    refused = 0
    for seed in range(3000):
        mutant = mutated(seed, update, other)
        try:
            assert patch(old, mutant) == new
        except ArtifactError:
            refused += 1
    assert refused > 2900


def test_with_every_checksum_true_the_outcome_is_an_error_or_within_the_limits(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes a patch makes its checksum and digests too."""
    old, new = pair
    digests = layout.Digests(bytes(16), bytes(16))
    monkeypatch.setattr(layout, "digest", lambda _: bytes(16))
    head, body = halves(old, diff(old, new))
    other = halves(old, diff(old, whole()))[1]
    followed, slowest = 0, 0.0
    for seed in range(120):
        start = time.perf_counter()
        mutant = layout.pack_file(digests, head + mutated(seed, body, other))
        try:
            decode(patch(old, mutant, limits=LIMITS), limits=LIMITS).tensors()
            followed += 1
        except ArtifactError as error:
            followed += any(word in str(error) for word in ("stream", "comes out in"))
        slowest = max(slowest, time.perf_counter() - start)
    assert followed > 60  # to the end of a stream at least
    assert slowest < 1
    tracemalloc.start()
    for seed in range(7):
        with contextlib.suppress(ArtifactError):
            patch(old, layout.pack_file(digests, head + mutated(seed, body, other)), limits=LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def halves(old: bytes, update: bytes) -> tuple[bytes, bytes]:
    """An update's body: directory and graph, which mutations soon make unreadable; the rest."""
    _, reader = layout.parse_file(memoryview(update))
    body = bytes(reader.peek(reader.remaining))
    layout.read_directory(reader, decode(old))
    layout.read_graph(reader, decode(old), Limits())
    return body[: reader.position], body[reader.position :]


def test_groups_cover_all_numbers_once_and_grow() -> None:
    found = list(residuals.groups(10_000))
    assert [each.start for each in found[1:]] == [each.stop for each in found[:-1]]
    assert (found[0].start, found[-1].stop) == (0, 10_000)
    assert found[0].stop == residuals.SHORT
    assert found[-2].stop - found[-2].start == residuals.LONG


@pytest.mark.parametrize("bits", [1, 5, 32])
def test_residuals_come_back_and_cost_their_entropy(bits: int) -> None:
    rng = np.random.default_rng(0)
    context = rng.integers(0, 4, 6000)
    values = np.where(rng.random(6000) < 0.02 * 4**context / 4, rng.choice([-1, 1], 6000), 0)
    values[:3] = [(1 << bits) - 1, -(1 << bits) + 1, 0]
    coder = BitEncoder()
    known = np.array([context, 0 * context])
    Residuals(coder, [4, 1], bits).code(values, lambda part: known[:, part])
    stream = coder.finish()
    reader = BitDecoder(memoryview(stream))
    none = np.zeros(6000, dtype=np.int64)
    came = Residuals(reader, [4, 1], bits).code(none, lambda part: known[:, part])
    reader.finish()
    assert np.array_equal(came, values)
    chances = 0.02 * 4.0 ** np.arange(4) / 4
    each = -chances * np.log2(chances / 2) - (1 - chances) * np.log2(1 - chances)
    ideal = each[context].sum() / 8
    assert ideal * 0.97 < len(stream) < ideal * 1.15 + 20


def test_bad_input_gets_one_line(compress: Compress, here: Path, pair: tuple[bytes, bytes]) -> None:
    (here / "old.dcz").write_bytes(pair[0])
    (here / "new.dcz").write_bytes(pair[1])
    (here / "cut.dcz").write_bytes(pair[1][:-9])
    done = compress("diff", "old.dcz", "new.dcz", "-o", "u.dczd")
    assert (done.code, done.err) == (0, "")
    size = (here / "u.dczd").stat().st_size
    assert done.out.startswith(f"u.dczd: {size:,} bytes, {100 * size / len(pair[1]):.1f} % of the ")
    for arguments, line in (
        (("diff", "old.dcz", "new.dcz", "-o", "u.dczd"), "error: u.dczd exists: add --force"),
        (("diff", "old.dcz", "no.dcz", "-o", "v.dczd"), "error: no.dcz: no such file"),
        (("diff", "old.dcz", "cut.dcz", "-o", "v.dczd"), "error: cut.dcz: the file is truncated"),
        (("diff", "u.dczd", "new.dcz", "-o", "v.dczd"), "error: u.dczd: the file is not a .dcz"),
        (("patch", "new.dcz", "u.dczd", "-o", "v.dcz"), "error: u.dczd is not for new.dcz"),
        (("patch", "old.dcz", "new.dcz", "-o", "v.dcz"), "error: new.dcz: the file is not a .dczd"),
        (("patch", "old.dcz", "u.dczd", "-o", "new.dcz"), "error: new.dcz exists: add --force"),
    ):
        refused = compress(*arguments)
        assert refused.code == 1
        assert refused.err.startswith(line), refused.err
        assert refused.err.count("\n") == 1
    assert compress("patch", "old.dcz", "u.dczd", "-o", "made.dcz").code == 0
    assert (here / "made.dcz").read_bytes() == pair[1]
    assert sorted(path.name for path in here.iterdir()) == [
        *("cut.dcz", "made.dcz", "new.dcz", "old.dcz", "u.dczd")
    ]


def test_updates_need_no_torch() -> None:
    code = "import compressor.updates, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
