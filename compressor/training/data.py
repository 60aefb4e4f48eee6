"""Data specifications -> tensors in memory -> normalised, augmented batches.

    mnist | fashion-mnist | cifar10 | cifar100   ROOT/NAME/{train,test}.npz, or torchvision's files
    digits                                       scikit-learn's, resized to the network's input
    FOLDER                                       class folders of image files
    file.npz                                     arrays
    path/file.py:make                            whatever make() returns

Whole sets live in memory and batches are gathered from them: for images of these sizes that is
faster than worker processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor import distributed
from compressor.errors import DataError, UsageError
from compressor.tasks import CLASSIFICATION, Task
from compressor.training import data_files, data_folder, data_sources
from compressor.training.augment import WHOLE, check_policy
from compressor.training.augment import augment as apply_augment
from compressor.training.data_arrays import Split, permuted
from compressor.training.data_folder import Progress
from compressor.training.data_sources import NAMED, Source, default_root
from compressor.training.data_statistics import normalisation

__all__ = ["Data", "Progress", "Split", "batches", "default_root", "load", "normalise"]

FORMS = f"{', '.join(NAMED)}, digits, a folder of class folders, FILE.npz, or FILE.py:FUNCTION"


@dataclass(frozen=True, eq=False)
class Data:
    """A data set ready for training.

    ``mean`` and ``std`` are per channel, for images scaled to 0..1 where they are uint8 and for
    images as they are where float32. ``augment`` is the policy that suits the set, one of
    augment.POLICIES; ``background`` is the value of empty pixels on the same scale as ``mean``.
    ``fingerprint`` is the SHA-256 of name, splits and normalisation, in hexadecimal. ``classes`` is
    0 where the ``task`` has none.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str
    background: float
    fingerprint: str
    task: Task = CLASSIFICATION

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image; of other inputs whatever they have."""
        return tuple(self.train.x.shape[1:])


def load(
    spec: str,
    *,
    input_shape: tuple[int, ...] | None,
    root: Path | None = None,
    seed: int = 0,
    validation: float = 0.1,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    progress: Progress | None = None,
    task: Task = CLASSIFICATION,
) -> Data:
    """Read what ``spec`` names (see the top of this module) into memory.

    ``input_shape`` (C, H, W) is what the network takes; None accepts the data's own. ``root``
    is where named sets lie or are downloaded to (default_root() if None). A seeded permutation
    takes the fraction ``validation`` of the training images for validation (0: none) unless the
    set brings a validation split. ``mean`` and ``std`` replace the set's. ``progress`` is called
    with (files read, files in all) while a folder is read. Raises DataError, or UsageError for
    a fraction or normalisation that cannot be.
    """
    if not 0 <= validation < 1:
        raise UsageError(f"the validation fraction must lie in [0, 1), not {validation}")
    try:
        with distributed.in_turn():
            if task.labels:
                source = _read(spec, input_shape, root or default_root(), progress)
            else:
                source = _pairs(spec, input_shape)
    except OSError as error:
        raise DataError(f"data {spec} cannot be read: {error}") from error
    classes = _classes(source) if task.labels else 0
    train, held = source.train, source.validation
    if held is None:
        train, held = permuted(train, validation, seed)
    mean, std = normalisation(source, train, mean, std)
    for part in (source.test, held):
        if part.x.shape[1:] != train.x.shape[1:] or part.x.dtype != train.x.dtype:
            raise DataError(f"{spec}: {_layout(part)} in one split, {_layout(train)} in another")
    return Data(
        name=source.name,
        train=train,
        validation=held,
        test=source.test,
        classes=classes,
        mean=mean,
        std=std,
        augment=source.augment,
        background=0.0 if train.x.dtype == torch.uint8 else float(train.x.min()),
        fingerprint=_fingerprint(source.name, (train, held, source.test), mean, std),
        task=task,
    )


def _read(spec: str, input_shape: Any, root: Path, progress: Progress | None) -> Source:
    if spec in NAMED:
        return data_sources.named(spec, input_shape, root)
    if spec == "digits":
        return data_sources.digits(input_shape)
    file, colon, function = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return data_files.script(Path(file), function, input_shape)
    path = Path(spec)
    if spec.endswith(".npz"):
        return data_files.npz(path, input_shape)
    if spec and path.is_dir():  # Path("") is the working directory
        return data_folder.folder(path, input_shape, progress)
    if spec.endswith(".py"):
        raise DataError(f"--data {spec} lacks the function: give {spec}:FUNCTION")
    raise DataError(f"no data set is called {spec!r} and no folder either; give {FORMS}")


def _pairs(spec: str, input_shape: tuple[int, ...] | None) -> Source:
    """Inputs and targets of any shape, for a task that is not classification."""
    file, colon, function = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return data_files.script(Path(file), function, input_shape, labels=False)
    if spec.endswith(".npz"):
        return data_files.npz(Path(spec), input_shape, labels=False)
    raise DataError(
        f"data {spec} are labelled images, and --task asks for targets of its own: give FILE.npz "
        "or FILE.py:FUNCTION"
    )


def _classes(source: Source) -> int:
    """Checks every label against the number of classes, which is told or the training labels'."""
    classes = source.classes or int(source.train.y.max()) + 1
    for split in (source.train, source.test, source.validation):
        if split is not None and int(split.y.max()) >= classes:
            worst = int(split.y.max())
            raise DataError(f"{source.name}: label {worst} is outside 0..{classes - 1}")
    return classes


def _fingerprint(
    name: str, splits: tuple[Split, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> str:
    digest = hashlib.sha256(repr((name, mean, std)).encode())
    for split in splits:
        for tensor in (split.x, split.y):
            digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _layout(split: Split) -> str:
    return f"images of shape {tuple(split.x.shape[1:])} and {split.x.dtype}"


def on_device(split: Split, device: torch.device) -> Split:
    """``split`` on a GPU where it takes at most a quarter of what is free there, else as it is.

    Batches are then gathered where they are augmented and used, without a copy at every step.
    """
    if device.type != "cuda" or split.x.is_cuda:
        return split
    free, _ = torch.cuda.mem_get_info(device)
    return split.to(device) if 4 * split.x.nbytes <= free else split


def normalise(x: Tensor, data: Data) -> Tensor:
    """uint8 or float32 (B, C, H, W) on any device -> float32 of the same shape."""
    if x.ndim != 4:
        return x
    mean = torch.tensor(data.mean, device=x.device).view(-1, 1, 1)
    std = torch.tensor(data.std, device=x.device).view(-1, 1, 1)
    return (_scaled(x) - mean).div_(std)


def _scaled(x: Tensor) -> Tensor:
    return x / 255 if x.dtype == torch.uint8 else x


def batches(
    split: Split,
    data: Data,
    *,
    batch_size: int,
    shuffle_generator: torch.Generator | None = None,
    augment: str = "none",
    device: torch.device | str = "cpu",
    share: slice = WHOLE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over ``split``: (x float32 (B, C, H, W) normalised, y int64 (B,)) on ``device``.

    A generator (on the CPU) shuffles the images and draws the augmentation; without one the
    order is the split's own, and nothing is augmented. The last batch may be smaller. Of each
    batch only ``share`` is made: the images that the whole has at these places. Raises
    UsageError for a batch size below 1 or an augmentation without a generator.
    """
    check_policy(augment)
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    if shuffle_generator is None and augment != "none":
        raise UsageError(f"the augmentation {augment} needs a generator")
    return _batches(split, data, batch_size, shuffle_generator, augment, device, share)


def sample(
    data: Data,
    count: int,
    *,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    augment: str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """So many training images, or all, as :func:`batches`; chosen, ordered and augmented by the
    seed, where nothing is said in the data's own way, which the weights were trained for."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.train), generator=generator)[:count]
    return batches(
        data.train.take(chosen),
        data,
        batch_size=batch_size,
        shuffle_generator=generator,
        augment=data.augment if augment is None else augment,
        device=device,
    )


def _batches(
    split: Split,
    data: Data,
    batch_size: int,
    generator: torch.Generator | None,
    augment: str,
    device: torch.device | str,
    share: slice,
) -> Iterator[tuple[Tensor, Tensor]]:
    order = None if generator is None else torch.randperm(len(split), generator=generator)
    for start in range(0, len(split), batch_size):
        stop = min(start + batch_size, len(split))
        if order is None or generator is None:
            own = slice(start + (share.start or 0), stop, share.step)
            x, y = split.x[own].to(device), split.y[own].to(device)
        else:
            index = order[start:stop][share].to(split.x.device)
            x, y = split.x[index].to(device), split.y[index].to(device)
            if augment != "none":
                x = apply_augment(
                    *(_scaled(x), augment, generator, data.background),
                    batch=stop - start,
                    share=share,
                )
        yield normalise(x, data), y
