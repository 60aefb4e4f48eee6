"""Folders of class folders of image files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressor.errors import DataError
from compressor.training.data_arrays import Shape, Split, split_off
from compressor.training.data_sources import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
Files = Sequence[tuple[Path, int]]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def folder(path: Path, input_shape: Shape | None, progress: Progress | None) -> Source:
    """FOLDER/train/CLASS/* with FOLDER/test or FOLDER/val likewise, or FOLDER/CLASS/*.

    In the second form a fixed fifth becomes the test. With train, val and test, val is the
    validation split. Classes are numbered by name. Images are scaled to cover ``input_shape``,
    and cropped at the centre where the aspect differs; without it they must share one size.
    """
    parts = {name: path / name for name in ("train", "val", "test") if (path / name).is_dir()}
    if "train" not in parts:
        parts = {"": path}
    elif len(parts) == 1:
        raise DataError(f"{path} has a train folder but neither test nor val beside it")
    classes = _subfolders(parts.get("train", path))
    listing = {name: _listing(where, classes) for name, where in parts.items()}
    shape = input_shape or _shape_of(listing[next(iter(listing))][0][0])
    read = _Reader(shape, resize=input_shape is not None, progress=progress, listing=listing)
    splits = {name: read.split(files) for name, files in listing.items()}
    if "" in splits:
        train, test = split_off(splits[""], path)
    else:
        train, test = splits["train"], splits["test" if "test" in splits else "val"]
    augment = "flip-crop" if shape[0] == 3 else "none"
    validation = splits.get("val") if "test" in splits else None
    return Source(path.resolve().name, train, test, augment, len(classes), validation=validation)


def _subfolders(path: Path) -> list[str]:
    found = sorted(item.name for item in path.iterdir() if item.is_dir() and item.name[0] != ".")
    if not found:
        raise DataError(f"{path} holds no class folders; expected {path}/CLASS/image.png")
    return found


def _listing(path: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Image files below ``path`` with their labels, in a fixed order."""
    strangers = sorted(set(_subfolders(path)) - set(classes))
    if strangers:
        raise DataError(f"{path / strangers[0]} is a class that the training images do not have")
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((path / name).rglob("*"))
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES)})")
    return files


class _Reader:
    """Reads files into uint8 tensors of one shape and reports how far it is."""

    def __init__(
        self,
        shape: Shape,
        *,
        resize: bool,
        progress: Progress | None,
        listing: Mapping[str, Files],
    ) -> None:
        if shape[0] not in MODES:
            raise DataError(f"image files give 1, 3 or 4 channels; the network takes {shape[0]}")
        self.shape, self.resize, self.progress = shape, resize, progress
        self.done, self.total = 0, sum(len(files) for files in listing.values())

    def split(self, files: Files) -> Split:
        channels, height, width = self.shape
        try:
            x = np.empty((len(files), height, width, channels), dtype=np.uint8)
        except MemoryError as error:
            raise DataError(f"{len(files)} images of {self.shape} do not fit in memory") from error
        for row, (file, _) in zip(x, files, strict=True):
            row[...] = self._image(file)
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total)
        y = torch.tensor([label for _, label in files], dtype=torch.int64)
        return Split(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(), y)

    def _image(self, file: Path) -> NDArray[np.uint8]:
        """(H, W, C)."""
        from PIL import ImageOps
        from PIL.Image import Resampling

        channels, height, width = self.shape
        with _opened(file) as image:
            if image.size != (width, height):
                if not self.resize:
                    raise DataError(
                        f"{file} is {image.size[0]} x {image.size[1]} pixels, the first image "
                        f"{width} x {height}; give --input-shape to resize them all"
                    )
                image.draft(MODES[channels], (2 * width, 2 * height))
            picture = image.convert(MODES[channels])
            if picture.size != (width, height):
                picture = ImageOps.fit(picture, (width, height), Resampling.BILINEAR)
            return np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no readable image: {error}") from error


def _shape_of(file: Path) -> Shape:
    with _opened(file) as image:
        grey = image.mode in ("1", "L", "I", "I;16", "F")
        return (1 if grey else 3), image.size[1], image.size[0]
