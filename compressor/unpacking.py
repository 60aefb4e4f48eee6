"""What can be made of an artifact without the network's class: files, and checks."""

from pathlib import Path
from typing import Any

import numpy as np

from compressor.artifact import Artifact
from compressor.errors import ArtifactError, ExportError, LoadError
from compressor.files import write_atomically

TOLERANCE = 1e-5
ABOUT = ("network", "channels")
"""The entries of the metadata that tell a network's architecture, and what is left of it."""


def unpack(artifact: Artifact, target: Path) -> int:
    """Write ``target`` (.onnx, .pt or .safetensors) from an artifact; returns its size in bytes.

    A ``.safetensors`` file also says which network it is and which channels of it are left, so that
    ``compressor.load`` makes a module of it. Raises :class:`ArtifactError` where an ONNX file is
    asked of an artifact without its graph.
    """
    if target.suffix == ".onnx":
        write_atomically(target, onnx_bytes(artifact))
    else:
        import torch

        from compressor import checkpoint

        state = {name: torch.from_numpy(np.array(v)) for name, v in artifact.tensors().items()}
        checkpoint.write(state, target, about(artifact))
    return target.stat().st_size


def about(artifact: Artifact) -> dict[str, str]:
    """What a file of tensors must say for the network to be built again."""
    return {key: artifact.metadata[key] for key in ABOUT if key in artifact.metadata}


def onnx_bytes(artifact: Artifact) -> bytes:
    """The ONNX file of an artifact; the very bytes of the run that wrote it."""
    from compressor.export import onnx

    if artifact.graph is None:
        raise ArtifactError(
            "the artifact was written with --weights-only and has no graph: decompress it to .pt "
            "or .safetensors, or compress again with the graph"
        )
    return onnx.build(artifact.graph, artifact.tensors(), artifact.metadata)


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
    own = onnx_bytes(artifact)
    outputs = _run(own, "the artifact's graph")
    if not np.isfinite(outputs).all():
        raise ExportError("the network's outputs are not finite")
    if against is not None:
        try:
            other = against.read_bytes()
        except OSError as error:
            raise LoadError(f"{against} cannot be read: {(error.strerror or '').lower()}") from None
        found |= _compare(own == other, outputs, _run(other, str(against)), against)
    return found


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


def _run(model: bytes, what: str) -> Any:
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
