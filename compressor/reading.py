"""A ``.dcz`` file without PyTorch: as arrays, or as a session of ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy.typing as npt


def arrays(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a ``.dcz`` file by name, dense, of the dtypes and shapes that were written.

    Imports neither torch nor onnxruntime. Raises :class:`ArtifactError` for a damaged file.
    """
    from compressor import artifact

    return artifact.read(path).tensors()


def session(path: str | Path, *, threads: int = 0) -> Any:
    """The network of a ``.dcz`` file as an ``onnxruntime.InferenceSession`` on the CPU.

    It runs the run's own ONNX file, which is made in memory (over 2 GB in a temporary folder, which
    is gone once the session is open): ``session(path).run(None, {"input": x})`` with x float32
    (N, ...). ``threads`` 0 lets ONNX Runtime choose. Needs no class of the network, and imports no
    torch. Raises :class:`ArtifactError` for a damaged file, or one that
    was written with ``--weights-only``.
    """
    from compressor import artifact, unpacking
    from compressor.export import verify

    with unpacking.runnable(artifact.read(path)) as model:
        return verify.session(model, threads)
