"""What can be made of an artifact without the network's class: files, and checks."""

import contextlib
import filecmp
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compressor.artifact import Artifact
from compressor.errors import ArtifactError, ExportError, LoadError
from compressor.files import parts_of, size_of

TOLERANCE = 1e-5
ABOUT = ("network", "channels")
"""The entries of the metadata that tell a network's architecture, and what is left of it."""


def unpack(artifact: Artifact, target: Path) -> int:
    """Write ``target`` (.onnx, .pt or .safetensors) from an artifact; returns its size in bytes.

    A network over 2 GB has its weights beside the ONNX file, in ``target`` and ".data".

    A ``.safetensors`` file also says which network it is and which channels of it are left, so that
    ``compressor.load`` makes a module of it. Raises :class:`ArtifactError` where an ONNX file is
    asked of an artifact without its graph.
    """
    if target.suffix == ".onnx":
        _write(artifact, target)
    else:
        import torch

        from compressor import checkpoint

        state = {name: torch.from_numpy(np.array(v)) for name, v in artifact.tensors().items()}
        checkpoint.write(state, target, about(artifact))
    return size_of(target)


def about(artifact: Artifact) -> dict[str, str]:
    """What a file of tensors must say for the network to be built again."""
    return {key: artifact.metadata[key] for key in ABOUT if key in artifact.metadata}


def onnx_bytes(artifact: Artifact) -> bytes:
    """The ONNX file of an artifact; the very bytes of the run that wrote it.

    Raises :class:`ExportError` for a network over 2 GB.
    """
    from compressor.export import onnx

    return onnx.build(_graph(artifact), artifact.tensors(), artifact.metadata)


def input_shape(artifact: Artifact) -> tuple[int, ...] | None:
    """One input without the batch, as the graph says; None where it takes several, or says not."""
    import onnx

    graph = onnx.ModelProto.FromString(_graph(artifact)).graph
    inputs = [item for item in graph.input if item.name not in artifact.names]
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][1:]
    return tuple(sizes) if len(inputs) == 1 and all(sizes) else None


def is_large(artifact: Artifact) -> bool:
    """Whether one ONNX file may be too small for the network."""
    from compressor.export import onnx

    return not onnx.fits(len(_graph(artifact)) + artifact.decoded_bytes)


@contextlib.contextmanager
def unpacked(artifact: Artifact, name: str = "network.onnx") -> Iterator[Path]:
    """The ONNX file, called ``name``, in a temporary folder, where it is gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / name
        _write(artifact, path)
        yield path


@contextlib.contextmanager
def runnable(artifact: Artifact, name: str = "network.onnx") -> Iterator[bytes | Path]:
    """The ONNX file as ONNX Runtime opens it: in memory, or a large one :func:`unpacked`.

    A session that has opened it needs it no more.
    """
    if is_large(artifact):
        with unpacked(artifact, name) as path:
            yield path
    else:
        yield onnx_bytes(artifact)


def _write(artifact: Artifact, target: Path) -> None:
    from compressor.export import onnx

    onnx.write(target, _graph(artifact), artifact.tensors(), artifact.metadata)


def _graph(artifact: Artifact) -> bytes:
    if artifact.graph is None:
        raise ArtifactError(
            "the artifact was written with --weights-only and has no graph: decompress it to .pt "
            "or .safetensors, or compress again with the graph"
        )
    return artifact.graph


def verify(artifact: Artifact, against: Path | None = None) -> dict[str, Any]:
    """Decode every tensor, run the graph where there is one, compare with an ONNX file.

    Raises :class:`ArtifactError` for damage, and :class:`ExportError` where outputs differ by
    more than 1e-5 relative, are not finite, or ``against`` is not a network of the same inputs.
    """
    tensors = artifact.tensors()
    found: dict[str, Any] = {
        "tensors": len(tensors),
        "weights": sum(value.size for value in tensors.values()),
        "graph": artifact.graph is not None,
    }
    if artifact.graph is None and against is None:
        return found
    if against is not None:
        _check_readable(against)
    with unpacked(artifact, against.name if against else "network.onnx") as own:
        outputs = _run(own, "the artifact's graph")
        if not np.isfinite(outputs).all():
            raise ExportError("the network's outputs are not finite")
        if against is not None:
            others = _run(against, str(against))
            found |= _compare(_identical(own, against), outputs, others, against)
    return found


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None


def _identical(own: Path, other: Path) -> bool:
    """Whether two ONNX files of one name are the same bytes, and what they keep beside them."""
    pairs = [(each, other.with_name(each.name)) for each in parts_of(own)]
    return all(b.is_file() and filecmp.cmp(a, b, shallow=False) for a, b in pairs)


def _compare(identical: bool, outputs: Any, others: Any, against: Path) -> dict[str, Any]:
    from compressor.export.verify import difference

    if outputs.shape != others.shape:
        raise ExportError(
            f"{against} is another network: 4 inputs give outputs of shape {others.shape}, "
            f"the artifact's {outputs.shape}"
        )
    gap = difference(outputs, others)
    if not gap.relative <= TOLERANCE:
        raise ExportError(
            f"{against} is not what the artifact decodes to: outputs differ by {gap.relative:.1e} "
            f"relative ({gap.absolute:.1e} absolute)"
        )
    return {
        "identical": identical,
        "difference_absolute": gap.absolute,
        "difference_relative": gap.relative,
    }


def _run(model: Path, what: str) -> Any:
    """Outputs on 4 fixed random inputs of the shape that the model declares."""
    from compressor.export.verify import run, session

    try:
        runtime = session(model)
        inputs = runtime.get_inputs()
        if len(inputs) != 1:
            raise ExportError(f"it has {len(inputs)} inputs, not one")
        shape = [size if isinstance(size, int) else 4 for size in inputs[0].shape]
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        return run(runtime, inputs[0].name, x)
    except ExportError as error:
        raise ExportError(f"{what}: {error}") from None
