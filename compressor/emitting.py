"""Files for runtimes, made of an artifact: what ``compress export`` writes."""

from pathlib import Path
from typing import Any

import numpy as np

from compressor.artifact import Artifact
from compressor.errors import ExportError, UsageError
from compressor.export import optional
from compressor.files import check_absent, explained, parts_of, write_atomically
from compressor.network import Context
from compressor.settings import DataSpec, Export
from compressor.training import data as datasets
from compressor.training.data import Data, normalise
from compressor.unpacking import input_shape, is_large, runnable, unpack

Json = dict[str, Any]


def emit(
    artifact: Artifact,
    stem: Path,
    settings: Export,
    context: Context,
    *,
    threads: int = 1,
    force: bool = False,
) -> dict[str, Json]:
    """Write the files that ``settings.emit`` names; what is known of each, by name.

    ``stem`` is what their paths have in common: that of ``ort`` is ``stem`` and ".ort".

    ``onnx`` is the run's own ONNX file, and what the others are compared with: on the data's test
    images, or on random inputs where ``context`` has no data, and then there is no accuracy either.
    The rows are those of a run's report, with ``file`` besides, which names two where weights over
    2 GB lie beside the ONNX file. Raises :class:`CompressorError`.
    """
    if "int8" in settings.emit and context.data is None:
        raise UsageError("--emit int8 needs images to calibrate with: give --data")
    if is_large(artifact):
        optional.check_small(settings)
    suffixes = {"onnx": "onnx", **optional.SUFFIXES}
    targets = {kind: stem.with_name(f"{stem.name}.{suffixes[kind]}") for kind in settings.emit}
    for target in targets.values():
        check_absent(target, force=force)
    inputs = _inputs(artifact, context, settings.samples)
    with runnable(artifact, f"{stem.name}.onnx") as model:
        made = list(optional.outputs(model, inputs, settings, context, threads))
    for kind, content, row in made:
        if content is None:
            raise ExportError(f"{kind}: {row['why']}")
    with explained(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
    rows = {}
    for kind, content, row in made:
        if isinstance(content, bytes):
            write_atomically(targets[kind], content)
        else:
            unpack(artifact, targets[kind])
        rows[kind] = {"file": " + ".join(each.name for each in parts_of(targets[kind])), **row}
    return rows


def load_data(artifact: Artifact, spec: DataSpec, root: Path | None, seed: int) -> Data:
    """The data set, its images of the size that the artifact's network takes.

    Images are drawn from it as in a run of that seed, so the INT8 file is the run's own.
    """
    shape = _shape(artifact)
    if len(shape) != 3:
        raise UsageError(f"--data needs a network for images (C, H, W), not for input {shape}")
    return datasets.load(
        spec.spec,
        input_shape=(shape[0], shape[1], shape[2]),
        root=root,
        seed=seed,
        validation=spec.validation,
        mean=spec.mean,
        std=spec.std,
    )


def _shape(artifact: Artifact) -> tuple[int, ...]:
    shape = input_shape(artifact)
    if shape is None:
        raise ExportError("the network takes several inputs, or one whose size is free")
    return shape


def _inputs(artifact: Artifact, context: Context, count: int) -> Any:
    if context.data is not None and len(context.data.test):
        return normalise(context.data.test.x[:count], context.data).cpu().numpy()
    generator = np.random.default_rng(context.seed)
    return generator.standard_normal((count, *_shape(artifact))).astype(np.float32)
