"""The data sets that go by a name: torchvision's MNIST and CIFAR, scikit-learn's digits."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from compressor.errors import DataError
from compressor.training.data_arrays import Shape, Split, as_split, split_off

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer

# What reading a damaged .npz raises; RuntimeError stands for an encrypted entry or an unknown
# compression, MemoryError for an absurd shape.
BROKEN: tuple[type[Exception], ...] = (
    *(ValueError, EOFError, KeyError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it was found: training and test images, no normalisation yet.

    ``mean`` and ``std`` (per channel, of images in 0..1) are the customary ones of the set,
    None where they are to be computed. ``classes`` is None where the labels tell.
    ``validation`` is a split that the set itself brings.
    """

    name: str
    train: Split
    test: Split
    augment: str = "none"
    classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    validation: Split | None = None


@dataclass(frozen=True)
class Named:
    """A torchvision data set: class name, classes, customary normalisation, augmentation."""

    torchvision: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str


# The public CIFAR checkpoints of the thin ResNets were trained with ImageNet's statistics.
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMED = {
    "mnist": Named("MNIST", 10, (0.1307,), (0.3081,), "affine"),
    "fashion-mnist": Named("FashionMNIST", 10, (0.2860,), (0.3530,), "flip-crop"),
    "cifar10": Named("CIFAR10", 10, *_IMAGENET, "flip-crop"),
    "cifar100": Named("CIFAR100", 100, *_IMAGENET, "flip-crop"),
}


def default_root() -> Path:
    """$COMPRESS_DATA_ROOT, else ~/.cache/compressor."""
    root = os.environ.get("COMPRESS_DATA_ROOT")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "compressor"


def named(name: str, input_shape: Shape | None, root: Path) -> Source:
    """``root/name/{train,test}.npz`` where there, else torchvision's files below ``root``.

    What is absent is downloaded. Raises DataError where that fails.
    """
    entry = NAMED[name]
    files = [root / name / f"{part}.npz" for part in ("train", "test")]
    if any(file.exists() for file in files):
        train, test = (_pair(file, input_shape) for file in files)
    else:
        train, test = (_torchvision(name, part, input_shape, root) for part in (True, False))
    return Source(name, train, test, entry.augment, entry.classes, entry.mean, entry.std)


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays of a .npz file. Objects are refused, for reading them runs a pickle."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path} holds a single array; save it with np.savez(x=..., y=...)")
            return {key: archive[key] for key in archive.files}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except BROKEN as error:
        raise DataError(f"{path} is no .npz file of plain arrays: {error}") from error


def _pair(path: Path, input_shape: Shape | None) -> Split:
    arrays = read_npz(path)
    if not {"x", "y"} <= arrays.keys():
        raise DataError(f"{path} must hold x and y, but holds {', '.join(arrays) or 'nothing'}")
    return as_split(arrays["x"], arrays["y"], input_shape, str(path))


def _torchvision(name: str, train: bool, input_shape: Shape | None, root: Path) -> Split:
    part = _open_or_download(name, train, root)
    labels = torch.as_tensor(part.targets)
    return as_split(part.data, labels, input_shape, f"{name} {'train' if train else 'test'}")


def _open_or_download(name: str, train: bool, root: Path) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, NAMED[name].torchvision)
    places = [root / NAMED[name].torchvision / "raw", root / NAMED[name].torchvision, root]
    new = [folder for folder in places if not folder.exists()]
    with _quiet():
        # torchvision says "absent" and "damaged" with whatever its readers happen to raise.
        try:
            return kind(str(root), train=train, download=False)
        except Exception:
            log.info("downloading %s to %s", name, root)
        try:
            return kind(str(root), train=train, download=True)
        except Exception as error:
            for folder in new:  # torchvision has made them; those that hold something stay
                with contextlib.suppress(OSError):
                    folder.rmdir()
            # On one line, and not with all the mirrors that were tried.
            reason = textwrap.shorten(str(error), 120, placeholder=" ...") or type(error).__name__
            raise DataError(
                f"data set {name} is absent or damaged below {root} and could not be downloaded "
                f"({reason}); name the folder that holds it with --data-root, "
                f"or put {name}/train.npz and {name}/test.npz (x, y) there"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither torchvision's prints nor NumPy's deprecation notes; no endless wait for a server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    noise = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(noise),
            contextlib.redirect_stderr(noise),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)


def digits(input_shape: Shape | None) -> Source:
    """scikit-learn's 1,797 digits of 8 x 8 pixels: 1,437 for training, 360 for the test.

    Scaled from 0..16 to 0..255, resized bilinearly to ``input_shape``, grey repeated over its
    channels. The test split is stratified and always the same.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) * (255 / 16)
    if input_shape is not None:
        channels, height, width = input_shape
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
        x = x.expand(-1, channels, -1, -1)
    x = x.round().clamp(0, 255).to(torch.uint8).contiguous()
    whole = Split(x, torch.as_tensor(bunch.target, dtype=torch.int64))
    return Source("digits", *split_off(whole, "digits"), "affine", 10)
