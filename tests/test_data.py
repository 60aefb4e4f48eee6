"""Data specifications, splits, normalisation and batches, on small files made here."""

import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from compressor.errors import DataError, UsageError
from compressor.training import augment, data_arrays
from compressor.training.data import Split, batches, default_root, load, normalise

SHARED = Path(__file__).parents[2] / "shared" / "data"
Array = NDArray[Any]


def images(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int, classes: int = 3) -> Array:
    return np.arange(count) % classes


def save(path: Path, **arrays: Array) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


@pytest.fixture
def grey(tmp_path: Path) -> str:
    """30 training and 12 test images of 6 x 5 pixels, 3 classes."""
    return save(
        tmp_path / "grey.npz",
        x_train=images(30, 6, 5),
        y_train=labels(30),
        x_test=images(12, 6, 5, seed=1),
        y_test=labels(12),
    )


@pytest.fixture
def colour(tmp_path: Path) -> str:
    """The same with three channels, channels last."""
    return save(
        tmp_path / "colour.npz",
        x_train=images(30, 6, 5, 3),
        y_train=labels(30),
        x_test=images(12, 6, 5, 3, seed=1),
        y_test=labels(12),
    )


# ---------------------------------------------------------------- splits


def rows(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.x]


def test_validation_comes_from_the_training_images(grey: str) -> None:
    data = load(grey, input_shape=(1, 6, 5), validation=0.2)
    whole = [image.tobytes() for image in images(30, 6, 5)]
    assert len(data.validation) == 6
    assert sorted(rows(data.train) + rows(data.validation)) == sorted(whole)
    assert rows(data.test) == [image.tobytes() for image in images(12, 6, 5, seed=1)]


def test_labels_stay_with_their_images(grey: str) -> None:
    data = load(grey, input_shape=None)
    of = {image.tobytes(): label for image, label in zip(images(30, 6, 5), labels(30), strict=True)}
    for split in (data.train, data.validation):
        assert [of[row] for row in rows(split)] == split.y.tolist()


def test_the_seed_moves_the_validation_split_and_nothing_else(tmp_path: Path) -> None:
    spec = save(tmp_path / "a.npz", x=images(50, 4, 4), y=labels(50))
    first, again, other = (load(spec, input_shape=None, seed=seed) for seed in (1, 1, 2))
    assert rows(first.validation) == rows(again.validation)
    assert rows(first.validation) != rows(other.validation)
    assert rows(first.test) == rows(other.test)


def test_a_set_without_a_test_split_gives_a_stratified_fifth(tmp_path: Path) -> None:
    y = np.array([0] * 50 + [1] * 30 + [2] * 17)
    data = load(save(tmp_path / "a.npz", x=images(97, 4, 4), y=y), input_shape=None)
    # ceil(97 / 5) = 20 images, shares 50 * 20 / 97 = 10.3, 6.2 and 3.5: the last is rounded up.
    assert torch.bincount(data.test.y).tolist() == [10, 6, 4]
    assert not set(rows(data.test)) & set(rows(data.train) + rows(data.validation))
    assert len(data.train) + len(data.validation) == 77


def test_every_class_keeps_a_training_image(tmp_path: Path) -> None:
    y = np.array([0, 1, 2, 3, 3, 3, 3, 3])
    data = load(save(tmp_path / "a.npz", x=images(8, 4, 4), y=y), input_shape=None, validation=0)
    assert set(data.train.y.tolist()) == {0, 1, 2, 3}
    assert len(data.test) > 0


def test_no_validation_split_on_request(grey: str) -> None:
    data = load(grey, input_shape=None, validation=0)
    assert (len(data.train), len(data.validation)) == (30, 0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_validation_fraction_that_cannot_be(grey: str, fraction: float) -> None:
    with pytest.raises(UsageError, match=r"\[0, 1\)"):
        load(grey, input_shape=None, validation=fraction)


def test_a_validation_fraction_that_takes_nothing(grey: str) -> None:
    with pytest.raises(DataError, match="0 of 30"):
        load(grey, input_shape=None, validation=0.001)


# ---------------------------------------------------------------- fingerprint


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    x, y = images(40, 4, 4), labels(40)
    pixel, label = x.copy(), y.copy()
    pixel[7, 0, 0] ^= 1
    label[7] = (label[7] + 1) % 3

    def fingerprint(place: str, *arrays: Array, **options: Any) -> str:
        parts = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True))
        spec = save(tmp_path / place / "a.npz", **parts)
        return load(spec, input_shape=None, **options).fingerprint

    reference = fingerprint("here", x, y, x, y)
    assert fingerprint("elsewhere", x, y, x, y) == reference
    different = [
        fingerprint("here", pixel, y, x, y),
        fingerprint("here", x, label, x, y),
        fingerprint("here", x, y, pixel, y),
        fingerprint("here", x, y, x, label),
        fingerprint("here", x, y, x, y, seed=1),
        fingerprint("here", x, y, x, y, validation=0.2),
        fingerprint("here", x, y, x, y, mean=(0.5,), std=(0.5,)),
    ]
    assert len({reference, *different}) == 8


# ---------------------------------------------------------------- normalisation


def test_statistics_are_those_of_the_training_images(colour: str) -> None:
    data = load(colour, input_shape=(3, 6, 5))
    x = data.train.x.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, x.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(data.std, x.std(axis=(0, 2, 3)), rtol=1e-5)


def test_statistics_of_float_images_are_taken_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(5, 2, (40, 1, 4, 4))
    data = load(save(tmp_path / "a.npz", x=x, y=labels(40)), input_shape=None)
    assert data.train.x.dtype == torch.float32
    np.testing.assert_allclose(data.mean, data.train.x.double().mean().item(), rtol=1e-5)
    np.testing.assert_allclose(data.std, data.train.x.double().std(correction=0).item(), rtol=1e-5)
    assert data.background == data.train.x.min().item()


def test_a_constant_channel_gets_standard_deviation_one(tmp_path: Path) -> None:
    x = np.full((20, 4, 4), 51, dtype=np.uint8)
    data = load(save(tmp_path / "a.npz", x=x, y=labels(20)), input_shape=None)
    assert (data.mean, data.std) == ((0.2,), (1.0,))


def test_normalise(colour: str) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    data = load(colour, input_shape=None, mean=mean, std=std)
    x = data.test.x
    expected = np.empty(x.shape)
    for channel in range(3):
        expected[:, channel] = (x[:, channel].numpy() / 255 - mean[channel]) / std[channel]
    np.testing.assert_allclose(normalise(x, data).numpy(), expected, atol=1e-6)
    floats = x / 255
    before = floats.clone()
    np.testing.assert_allclose(normalise(floats, data).numpy(), expected, atol=1e-6)
    assert torch.equal(floats, before)  # nothing happens in place


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5,), (0.5,)),
        ((0.5,) * 3, None),
        (None, (0.5,) * 3),
        ((0.5,) * 3, (0.5, 0.0, 0.5)),
        ((0.5, float("nan"), 0.5), (0.5,) * 3),
    ],
)
def test_normalisation_that_does_not_fit(
    colour: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> None:
    with pytest.raises(UsageError):
        load(colour, input_shape=None, mean=mean, std=std)


# ---------------------------------------------------------------- batches


def test_batches_in_order_cover_the_split(colour: str) -> None:
    data = load(colour, input_shape=None)
    found = list(batches(data.test, data, batch_size=5))
    assert [len(y) for _, y in found] == [5, 5, 2]
    assert torch.equal(torch.cat([y for _, y in found]), data.test.y)
    torch.testing.assert_close(torch.cat([x for x, _ in found]), normalise(data.test.x, data))


def test_shuffled_batches_are_a_permutation_by_the_generator(colour: str) -> None:
    data = load(colour, input_shape=None)

    def epoch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        found = list(batches(data.test, data, batch_size=5, shuffle_generator=generator))
        return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])

    (x, y), again, other = epoch(1), epoch(1), epoch(2)
    assert torch.equal(x, again[0])
    assert not torch.equal(x, other[0])
    plain = normalise(data.test.x, data)
    origin = [int((plain == image).flatten(1).all(1).nonzero()[0]) for image in x]
    assert sorted(origin) == list(range(12))
    assert torch.equal(y, data.test.y[origin])


@pytest.mark.parametrize("policy", ["flip-crop", "affine", "elastic"])
def test_augmented_batches_repeat_with_the_seed(colour: str, policy: str) -> None:
    data = load(colour, input_shape=None)

    def epoch(seed: int, elsewhere: int = 0) -> torch.Tensor:
        torch.manual_seed(elsewhere)
        generator = torch.Generator().manual_seed(seed)
        found = batches(data.test, data, batch_size=5, shuffle_generator=generator, augment=policy)
        return torch.cat([x for x, _ in found])

    assert torch.equal(epoch(3), epoch(3, elsewhere=1))
    assert not torch.equal(epoch(3), epoch(4))


def test_batches_refuse_what_cannot_be(grey: str) -> None:
    data = load(grey, input_shape=None)
    generator = torch.Generator()
    with pytest.raises(UsageError, match="batch size"):
        batches(data.train, data, batch_size=0)
    with pytest.raises(UsageError, match="needs a generator"):
        batches(data.train, data, batch_size=1, augment="affine")
    with pytest.raises(UsageError, match="none, flip-crop, affine, elastic"):
        batches(data.train, data, batch_size=1, augment="spin", shuffle_generator=generator)


# ---------------------------------------------------------------- augmentation


def test_flip_crop_gives_a_window_of_the_padded_image_mirrored_or_not() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 2, 5, 7, generator=generator)
    out = augment.flip_crop(x, generator, background=0.25)
    assert out.shape == x.shape
    seen = set()
    for image, result in zip(x.numpy(), out.numpy(), strict=True):
        padded = np.full((2, 13, 15), 0.25, dtype=np.float32)
        padded[:, 4:9, 4:11] = image
        places = {
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            if np.array_equal(
                padded[:, top : top + 5, left : left + 7][..., :: -1 if mirrored else 1], result
            )
        }
        assert len(places) == 1
        seen |= places
    assert {mirrored for _, _, mirrored in seen} == {False, True}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))


def test_affine_resamples_like_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 1, 12, 20, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand(5, 4, generator=generator, dtype=torch.float64).numpy() * 2 - 1
    out = augment.affine(x, torch.Generator().manual_seed(1), background=0.5)
    centre = np.array([5.5, 9.5])  # row, column
    for i in range(4):
        angle, zoom, shear = np.radians(10) * draw[0, i], 1 + 0.1 * draw[1, i], 0.1 * draw[2, i]
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        by_xy = rotation @ np.array([[1, shear], [0, 1]]) / zoom
        matrix = by_xy[::-1, ::-1]  # SciPy's order is (row, column)
        offset = centre - matrix @ centre + 2 * draw[[4, 3], i]
        expected = ndimage.affine_transform(
            x[i, 0].numpy().astype(np.float64),
            matrix,
            offset,
            order=1,
            mode="grid-constant",
            cval=0.5,
        )
        np.testing.assert_allclose(out[i, 0].numpy(), expected, atol=2e-5)


def test_elastic_without_a_field_is_affine(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 1, 12, 20, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(augment, "ELASTIC_SPREAD", 0.0)
    bent, straight = (
        move(x, torch.Generator().manual_seed(1), background=0.5)
        for move in (augment.elastic, augment.affine)
    )
    assert torch.equal(bent, straight)


def test_elastic_displaces_by_its_share_of_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_ROTATION", "MAX_SCALING", "MAX_SHEAR", "MAX_SHIFT"):
        monkeypatch.setattr(augment, name, 0.0)
    # As many places as pixels: each pixel's displacement is a normal number of its own.
    monkeypatch.setattr(augment, "ELASTIC_KNOTS", 40)
    ramp = torch.arange(40.0).repeat(40, 1)  # what a pixel holds is where it comes from
    x = torch.stack([ramp, ramp.T])[None].expand(30, 2, 40, 40)
    out = augment.elastic(x, torch.Generator().manual_seed(0))
    moved = (out - x)[:, :, 8:-8, 8:-8]  # far from what comes in from outside
    sigma = augment.ELASTIC_SPREAD * 40
    assert float(moved.std()) == pytest.approx(sigma, rel=0.02)
    assert abs(float(moved.mean())) < 0.02 * sigma
    rows, columns = moved[:, 0].flatten(), moved[:, 1].flatten()
    assert abs(float(torch.corrcoef(torch.stack([rows, columns]))[0, 1])) < 0.02


def test_a_field_is_smooth() -> None:
    """Neighbours move alike: their difference is a small part of what each moves."""
    x = torch.arange(28.0).repeat(28, 1)[None, None].expand(50, 1, 28, 28)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    field = augment.elastic(x, generators[0]) - augment.affine(x, generators[1])
    inner = field[..., 8:-8, 8:-8]
    assert float(inner.diff(dim=2).std()) < 0.4 * float(inner.std())


@pytest.mark.parametrize("move", [augment.affine, augment.elastic])
def test_moving_leaves_an_empty_image_empty(move: Callable[..., torch.Tensor]) -> None:
    x = torch.full((3, 2, 8, 8), 0.75)
    out = move(x, torch.Generator().manual_seed(0), background=0.75)
    assert torch.equal(out, x)


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("shape", "input_shape", "expected"),
    [
        ((6, 5), None, (1, 6, 5)),
        ((6, 5, 3), None, (3, 6, 5)),
        ((3, 6, 5), None, (3, 6, 5)),
        ((6, 5, 1), (1, 6, 5), (1, 6, 5)),
        ((2, 6, 5), (2, 6, 5), (2, 6, 5)),
        ((6, 5, 2), (2, 6, 5), (2, 6, 5)),
        ((3, 3, 3), (3, 3, 3), (3, 3, 3)),
        ((3, 6, 3), (3, 3, 6), (3, 3, 6)),
    ],
)
def test_layouts(
    shape: tuple[int, ...],
    input_shape: tuple[int, int, int] | None,
    expected: tuple[int, int, int],
) -> None:
    x = images(4, *shape)
    found = data_arrays.as_split(x, labels(4), input_shape, "here").x
    assert tuple(found.shape[1:]) == expected
    first = len(shape) == 3 and shape != expected
    np.testing.assert_array_equal(
        found.numpy(), (x.transpose(0, 3, 1, 2) if first else x).reshape(4, *expected)
    )


def test_images_are_kept_in_the_type_that_loses_nothing() -> None:
    x = images(4, 6, 5)
    for kind in (np.uint8, np.int16, np.int64, np.uint16):
        found = data_arrays.as_split(x.astype(kind), labels(4), None, "here").x
        assert found.dtype == torch.uint8
        np.testing.assert_array_equal(found[:, 0].numpy(), x)
    floats = data_arrays.as_split(x / 255, labels(4), None, "here").x
    assert floats.dtype == torch.float32


def test_read_only_arrays_are_copied() -> None:
    x, y = images(4, 6, 5), labels(4)
    x.flags.writeable = y.flags.writeable = False
    found = data_arrays.as_split(x, y, None, "here")
    found.x.zero_()
    assert x.any()


NAN = np.zeros((4, 6, 5))
NAN[2, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("x", "y", "input_shape", "message"),
    [
        (images(4, 6, 5), labels(3), None, r"\(4, 6, 5\) do not go with 3 labels"),
        (images(0, 6, 5), labels(0), None, "holds no images"),
        (images(4, 6, 5), labels(4) - 1, None, "label -1 is below 0"),
        (images(4, 6, 5), labels(4) / 2, None, "labels must be integers"),
        (images(4, 6, 5), np.eye(4, dtype=int), None, "labels must be integers"),
        (NAN, labels(4), None, "image 2 holds NaN"),
        (np.where(np.isnan(NAN), np.inf, 0), labels(4), None, "image 2 holds NaN or infinity"),
        (images(4, 6, 5), labels(4), (1, 28, 28), r"\(1, 6, 5\).*takes \(1, 28, 28\)"),
        (images(4, 6, 5, 3), labels(4), (1, 6, 5), r"\(3, 6, 5\).*takes \(1, 6, 5\)"),
        (images(4, 3, 6, 5), labels(4), (1, 6, 5), r"\(3, 6, 5\).*takes \(1, 6, 5\)"),
        (images(4, 6, 5, 7), labels(4), None, "neither"),
        (images(4, 30), labels(4), None, r"\(4, 30\)"),
        (images(4, 6, 5).astype(int) + 300, labels(4), None, "0..255"),
        (images(4, 6, 5) > 9, labels(4), None, "bool"),
        (np.array(["a", "b"]), labels(2), None, "images are no numeric array"),
        (images(2, 6, 5), np.array([None, 1]), None, "labels are no numeric array"),
    ],
)
def test_bad_arrays(
    x: Array, y: Array, input_shape: tuple[int, int, int] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        data_arrays.as_split(x, y, input_shape, "here")
    assert str(caught.value).startswith("here")


# ---------------------------------------------------------------- named sets


def test_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPRESS_DATA_ROOT", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("COMPRESS_DATA_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "compressor"


def test_named_npz_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "cifar10" / "train.npz", x=images(20, 32, 32, 3), y=labels(20))
    save(tmp_path / "cifar10" / "test.npz", x=images(8, 32, 32, 3), y=labels(8))
    monkeypatch.setenv("COMPRESS_DATA_ROOT", str(tmp_path))
    data = load("cifar10", input_shape=(3, 32, 32))
    assert (data.name, data.classes, data.augment) == ("cifar10", 10, "flip-crop")
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)
    np.testing.assert_array_equal(data.test.x.numpy().transpose(0, 2, 3, 1), images(8, 32, 32, 3))


def test_named_npz_needs_both_files(tmp_path: Path) -> None:
    save(tmp_path / "cifar10" / "train.npz", x=images(20, 32, 32, 3), y=labels(20))
    with pytest.raises(DataError, match=r"test\.npz"):
        load("cifar10", input_shape=None, root=tmp_path)


def test_labels_beyond_the_set_s_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        save(tmp_path / "mnist" / f"{part}.npz", x=images(20, 28, 28), y=labels(20, 11))
    with pytest.raises(DataError, match=r"label 10 is outside 0\.\.9"):
        load("mnist", input_shape=None, root=tmp_path)


def write_idx(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = bytes([0, 0, 8, array.ndim])
    path.write_bytes(magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


@pytest.mark.parametrize(
    ("name", "folder", "mean", "policy"),
    [("mnist", "MNIST", 0.1307, "affine"), ("fashion-mnist", "FashionMNIST", 0.2860, "flip-crop")],
)
def test_torchvision_files(
    tmp_path: Path, name: str, folder: str, mean: float, policy: str
) -> None:
    for prefix, count in (("train", 30), ("t10k", 10)):
        raw = tmp_path / folder / "raw"
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images(count, 28, 28))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels(count, 10).astype(np.uint8))
    data = load(name, input_shape=(1, 28, 28), root=tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 10)
    assert (data.mean, data.augment) == ((mean,), policy)
    np.testing.assert_array_equal(data.test.x[:, 0].numpy(), images(10, 28, 28))
    assert data.test.y.tolist() == list(range(10))


def test_a_failed_download_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from torchvision import datasets

    def download(self: object) -> None:
        print("Downloading http://example.org")
        print("100%", file=sys.stderr)
        raise RuntimeError("Error downloading\ntrain-images")

    monkeypatch.setattr(datasets.MNIST, "download", download)
    with pytest.raises(DataError) as caught:
        load("mnist", input_shape=None, root=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("mnist", str(tmp_path), "--data-root", "Error downloading train-images"):
        assert part in message
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- digits


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 24), None])
def test_digits(shape: tuple[int, int, int] | None) -> None:
    data = load("digits", input_shape=shape)
    assert data.input_shape == (shape or (1, 8, 8))
    assert (data.classes, len(data.test), data.augment) == (10, 360, "affine")
    assert len(data.train) + len(data.validation) == 1437
    assert torch.equal(data.train.x[:, :1].expand_as(data.train.x), data.train.x)
    counts = torch.bincount(torch.cat([data.train.y, data.validation.y]))
    # Each class gives a fifth, rounded either way.
    assert (
        (torch.bincount(data.test.y) - (counts + torch.bincount(data.test.y)) / 5).abs() < 1
    ).all()


def test_digits_are_scaled_to_bytes() -> None:
    from sklearn.datasets import load_digits

    found = load("digits", input_shape=None)
    whole = torch.cat([found.train.x, found.validation.x, found.test.x]).numpy()[:, 0]
    expected = np.rint(load_digits().images * 255 / 16)
    assert sorted(map(bytes, whole)) == sorted(map(bytes, expected.astype(np.uint8)))


# ---------------------------------------------------------------- class folders

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes ``count`` images of one colour for each class into every named part."""

    def write(
        *parts: str, count: int = 10, size: tuple[int, int] = (9, 6), mode: str = "RGB"
    ) -> Path:
        for part in parts:
            for shade, name in ((40, "ant"), (200, "bee")):
                folder = tmp_path / "set" / part / name
                folder.mkdir(parents=True)
                for i in range(count):
                    value = shade + i
                    colour = value if mode == "L" else (value, 255 - value, 7)
                    Image.new(mode, size, colour).save(folder / f"{i}.png")
        return tmp_path / "set"

    return write


def test_folder_with_train_and_test(tree: Tree) -> None:
    data = load(str(tree("train", "test")), input_shape=(3, 6, 9))
    assert (data.name, data.classes, data.augment) == ("set", 2, "flip-crop")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 20)
    # Red is 40 + i for ants, which are class 0, and 200 + i for bees.
    for split in (data.train, data.validation, data.test):
        assert torch.equal((split.x[:, 0, 0, 0] >= 200).long(), split.y)
        assert torch.equal(split.x[:, 1].int(), 255 - split.x[:, 0].int())
    assert data.test.x[:10, 0, 3, 3].tolist() == list(range(40, 50))


@pytest.mark.parametrize("size", [(18, 12), (6, 9), (40, 5)])
def test_folder_images_are_resized(tree: Tree, size: tuple[int, int]) -> None:
    root = tree("train", "val", size=size)
    data = load(str(root), input_shape=(3, 6, 9))
    assert data.input_shape == (3, 6, 9)
    assert len(data.test) == 20  # val stands in for the test
    assert data.test.x[:10, 0].flatten(1).tolist() == [[40 + i] * 54 for i in range(10)]


def test_folder_with_all_three_parts_keeps_its_validation_split(tree: Tree) -> None:
    data = load(str(tree("train", "val", "test", count=5)), input_shape=None)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 10, 10)


def test_folder_of_classes_is_split(tree: Tree) -> None:
    data = load(str(tree("")), input_shape=None)
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    assert torch.bincount(data.test.y).tolist() == [2, 2]


def test_grey_folder(tree: Tree) -> None:
    root = str(tree("train", "test", mode="L"))
    assert load(root, input_shape=None).input_shape == (1, 6, 9)
    assert load(root, input_shape=(3, 6, 9)).input_shape == (3, 6, 9)


def test_folder_tells_how_far_it_is(tree: Tree) -> None:
    seen: list[tuple[int, int]] = []
    load(
        str(tree("train", "test")),
        input_shape=(3, 6, 9),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 40) for i in range(1, 41)]


@pytest.mark.parametrize("content", [b"", b"no image at all", b"half"])
def test_a_corrupt_image_is_named(tree: Tree, content: bytes) -> None:
    root = tree("train", "test", size=(60, 60))
    victim = root / "train" / "bee" / "3.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    with pytest.raises(DataError, match=r"bee.3\.png"):
        load(str(root), input_shape=(3, 6, 9))


def test_folders_that_cannot_be_read_as_a_set(tree: Tree, tmp_path: Path) -> None:
    root = tree("train")
    with pytest.raises(DataError, match="neither test nor val"):
        load(str(root), input_shape=None)
    (root / "test" / "wasp").mkdir(parents=True)
    with pytest.raises(DataError, match=r"wasp is a class that the training images do not have"):
        load(str(root), input_shape=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load(str(tmp_path / "empty"), input_shape=None)
    (tmp_path / "bare" / "class").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        load(str(tmp_path / "bare"), input_shape=None)


def test_folder_sizes_differ_without_an_input_shape(tree: Tree) -> None:
    root = tree("train", "test")
    Image.new("RGB", (10, 10)).save(root / "train" / "ant" / "5.png")
    with pytest.raises(DataError, match=r"5\.png is 10 x 10.*9 x 6.*--input-shape"):
        load(str(root), input_shape=None)


# ---------------------------------------------------------------- .npz files


def test_npz_with_both_splits(colour: str) -> None:
    data = load(colour, input_shape=(3, 6, 5))
    assert (data.name, data.classes, data.augment) == ("colour", 3, "none")
    np.testing.assert_array_equal(
        data.test.x.numpy(), images(12, 6, 5, 3, seed=1).transpose(0, 3, 1, 2)
    )


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_npz_never_unpickles(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()
    trace.unlink()
    objects = np.empty(4, dtype=object)
    objects[:] = [Bomb(trace)] * 4
    spec = save(tmp_path / "a.npz", x=objects, y=labels(4))
    with pytest.raises(DataError, match=r"no \.npz file of plain arrays"):
        load(spec, input_shape=None)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(DataError, match=r"b\.npz"):
        load(str(tmp_path / "b.npz"), input_shape=None)
    assert not trace.exists()


def test_npz_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.npz cannot be read: No such file"):
        load(str(tmp_path / "a.npz"), input_shape=None)
    with pytest.raises(DataError, match=r"must hold x_train.*but holds x, z"):
        load(save(tmp_path / "b.npz", x=images(3, 4, 4), z=labels(3)), input_shape=None)
    (tmp_path / "c.npz").write_bytes(b"")
    np.save(tmp_path / "d.npy", images(3, 4, 4))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    whole = Path(save(tmp_path / "e.npz", x=images(90, 4, 4), y=labels(90))).read_bytes()
    (tmp_path / "e.npz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[300] ^= 255
    (tmp_path / "f.npz").write_bytes(damaged)
    for name in "cdef":
        with pytest.raises(DataError, match=rf"{name}\.npz"):
            load(str(tmp_path / f"{name}.npz"), input_shape=None)


def test_splits_must_be_alike(tmp_path: Path) -> None:
    spec = save(
        tmp_path / "a.npz",
        x_train=images(20, 4, 4),
        y_train=labels(20),
        x_test=images(20, 5, 5),
        y_test=labels(20),
    )
    with pytest.raises(DataError, match="in one split"):
        load(spec, input_shape=None)


def test_test_labels_beyond_the_training_labels(tmp_path: Path) -> None:
    spec = save(
        tmp_path / "a.npz",
        x_train=images(20, 4, 4),
        y_train=labels(20, 3),
        x_test=images(20, 4, 4),
        y_test=labels(20, 5),
    )
    with pytest.raises(DataError, match=r"label 4 is outside 0\.\.2"):
        load(spec, input_shape=None)


# ---------------------------------------------------------------- a function in a file


def script(tmp_path: Path, body: str) -> str:
    (tmp_path / "mine.py").write_text(f"import numpy as np\n\ndef make():\n    {body}\n")
    return f"{tmp_path / 'mine.py'}:make"


@pytest.mark.parametrize(
    "body",
    [
        "x = np.zeros((20, 6, 5), np.uint8); return (x, [0, 1] * 10), (x, [0, 1] * 10)",
        "import torch; x = torch.zeros(20, 1, 6, 5); y = torch.arange(20) % 2; "
        "return [x, y], (x, y)",
        "from torch.utils.data import TensorDataset as T; import torch; "
        "d = T(torch.zeros(20, 1, 6, 5), torch.arange(20) % 2); return d, d",
        "from PIL import Image; d = [(Image.new('L', (5, 6)), i % 2) for i in range(20)]; "
        "D = type('D', (), {'__len__': lambda s: 20, '__getitem__': lambda s, i: d[i]}); "
        "return D(), D()",
    ],
)
def test_script(tmp_path: Path, body: str) -> None:
    data = load(script(tmp_path, body), input_shape=(1, 6, 5))
    assert (data.name, data.classes, data.input_shape) == ("mine:make", 2, (1, 6, 5))
    assert data.test.y.tolist() == [0, 1] * 10


def test_script_imports_from_beside_it_and_prints_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("classes = 2\n")
    body = (
        "print('hello'); from neighbour_of_mine import classes; "
        "part = np.zeros((20, 6, 5)), np.arange(20) % classes; return part, part"
    )
    before = list(sys.path)
    assert load(script(tmp_path, body), input_shape=None).classes == 2
    assert sys.path == before
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", r"mine\.py raised ZeroDivisionError: division by zero \(line 4\)"),
        ("raise ValueError('a\\nb')", r"mine\.py raised ValueError: a b \(line 4\)"),
        ("import sys; sys.exit('no')", r"mine\.py raised SystemExit: no \(line 4\)"),
        ("import no_such_module_here", r"raised ModuleNotFoundError: .*\(line 4\)"),
        ("return (", r"raised SyntaxError: .*\(mine\.py, line 4\)"),
        ("return 3", r"must return \(train, test\), not a int"),
        ("return 1, 2", "each part must be"),
        ("return (1, 2, 3), (1, 2)", "not a tuple of 3"),
        ("return (np.zeros((2, 4, 4)), [0]), (np.zeros((2, 4, 4)), [0, 1])", r"make \(train\)"),
    ],
)
def test_script_errors_are_one_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(script(tmp_path, body), input_shape=None)
    assert "\n" not in str(caught.value)


def test_script_that_is_not_there(tmp_path: Path) -> None:
    spec = script(tmp_path, "pass")
    with pytest.raises(DataError, match="defines no function or class 'other'"):
        load(spec.replace(":make", ":other"), input_shape=None)
    with pytest.raises(DataError, match=r"there is no file .*no\.py"):
        load(str(tmp_path / "no.py:make"), input_shape=None)
    with pytest.raises(DataError, match=r"mine\.py:FUNCTION"):
        load(spec.removesuffix(":make"), input_shape=None)


def test_unknown_specification() -> None:
    with pytest.raises(
        DataError, match=r"'cifar11'.*mnist, fashion-mnist, cifar10, cifar100, digits"
    ):
        load("cifar11", input_shape=None)


# ---------------------------------------------------------------- the real sets


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "prepare.py").exists():
        pytest.skip(f"{SHARED} is absent")
    root = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, str(SHARED / "prepare.py"), str(root)], check=True)
    return root


@pytest.mark.slow
def test_real_mnist(real: Path) -> None:
    data = load("mnist", input_shape=(1, 28, 28), root=real)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    x = torch.cat([data.train.x, data.validation.x]).double() / 255
    assert x.mean().item() == pytest.approx(data.mean[0], abs=1e-4)
    assert x.std(correction=0).item() == pytest.approx(data.std[0], abs=1e-4)


@pytest.mark.slow
def test_real_cifar10(real: Path) -> None:
    data = load("cifar10", input_shape=(3, 32, 32), root=real)
    assert len(data.train) + len(data.validation) == 49_152
    assert len(data.test) == 9_827
