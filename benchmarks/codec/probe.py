"""One measurement of the codec in a process of its own, as JSON on stdout: see `scale`.

    python -m compressor.benchmarks.codec.probe encode NETWORK PROFILE FILE
    python -m compressor.benchmarks.codec.probe decode FILE THREADS
    python -m compressor.benchmarks.codec.probe load FILE THREADS

Memory is the largest resident set beyond that before the work, in bytes: for encoding before the
tensors are made, so they count; for decoding before the file is read. Linux tells it.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1 << 20

Network = dict[str, Any]

# Deep Compression, table 5: the layers of VGG-16, their shapes, and the share of weights kept.
VGG16: tuple[tuple[str, tuple[int, ...], float], ...] = (
    ("conv1_1", (64, 3, 3, 3), 0.58),
    ("conv1_2", (64, 64, 3, 3), 0.22),
    ("conv2_1", (128, 64, 3, 3), 0.34),
    ("conv2_2", (128, 128, 3, 3), 0.36),
    ("conv3_1", (256, 128, 3, 3), 0.53),
    ("conv3_2", (256, 256, 3, 3), 0.24),
    ("conv3_3", (256, 256, 3, 3), 0.42),
    ("conv4_1", (512, 256, 3, 3), 0.32),
    ("conv4_2", (512, 512, 3, 3), 0.27),
    ("conv4_3", (512, 512, 3, 3), 0.34),
    ("conv5_1", (512, 512, 3, 3), 0.35),
    ("conv5_2", (512, 512, 3, 3), 0.29),
    ("conv5_3", (512, 512, 3, 3), 0.36),
    ("fc6", (4096, 25088), 0.04),
    ("fc7", (4096, 4096), 0.04),
    ("fc8", (1000, 4096), 0.23),
)


def networks() -> dict[str, Any]:
    """What can be encoded, by name: functions that make a network."""
    return {
        "vgg16": vgg16,
        "pruned": lambda: {"weight": laplacian((50_000, 2000), 0.1, 15, 1)},
        "dense": lambda: {"weight": laplacian((50_000, 2000), None, 15, 1)},
        "floats": lambda: {"weight": float_weights((25_000, 2000))},
        "many": lambda: {str(i): laplacian((100, 100), 0.1, 15, i) for i in range(1000)},
    }


def vgg16() -> Network:
    """VGG-16 with Laplacian weights: 8 bits for convolutions, 5 for the rest, as in the paper."""
    found: Network = {}
    for seed, (name, shape, kept) in enumerate(VGG16):
        found[f"{name}.weight"] = laplacian(shape, kept, 127 if len(shape) > 2 else 15, seed)
        found[f"{name}.bias"] = np.random.default_rng(seed).normal(size=shape[0]).astype("f4")
    return found


def laplacian(shape: tuple[int, ...], kept: float | None, largest: int, seed: int) -> Any:
    """A shared tensor of levels up to ``largest``, Laplacian, a fifth of it their scale.

    A share ``kept`` is left, and none of these is 0; with ``None`` the tensor is dense, and levels
    are rounded. Made piece by piece, so that making it takes no memory to speak of.
    """
    from compressor.artifact import Shared

    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    indices = np.empty(size, dtype=np.uint8)
    for start in range(0, size, CHUNK):
        values = rng.laplace(scale=largest / 5, size=min(CHUNK, size - start))
        if kept is None:
            values = np.rint(values)
        else:
            values = np.where(rng.random(len(values)) < kept, away(values), 0)
        levels = values.clip(-largest, largest)
        indices[start : start + CHUNK] = np.where(levels == 0, 0, levels + largest + (levels < 0))
    every = np.delete(np.arange(-largest, largest + 1), largest)
    return Shared(indices.reshape(shape), every.astype(np.float32) * np.float32(2.0**-5))


def away(values: Any) -> Any:
    """Return values rounded away from 0."""
    return np.copysign(np.ceil(np.abs(values)), values)


def float_weights(shape: tuple[int, ...]) -> Any:
    """Weights that are not shared, a tenth of them left."""
    rng = np.random.default_rng(0)
    found = np.zeros(shape, dtype=np.float32)
    flat = found.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        part[:] = np.where(rng.random(len(part)) < 0.1, rng.normal(size=len(part)), 0)
    return found


def output_bytes(network: Network) -> int:
    """What a network takes as arrays of its own dtype."""
    from compressor.artifact import Shared

    return sum(
        4 * tensor.indices.size if isinstance(tensor, Shared) else tensor.nbytes
        for tensor in network.values()
    )


def encode(name: str, profile: str, file: str) -> dict[str, Any]:
    from compressor.artifact import encode as write

    before = resident()
    network = networks()[name]()
    start, cpu = time.perf_counter(), time.process_time()
    blob = write(network, profile=profile)  # type: ignore[arg-type]
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_resident() - before
    Path(file).write_bytes(blob)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak": peak,
        "output": output_bytes(network),
        "bytes": len(blob),
        "tensors": len(network),
    }


def decode(file: str, threads: str) -> dict[str, Any]:
    from compressor.artifact import read

    before = resident()
    start, cpu = time.perf_counter(), time.process_time()
    found = read(file, threads=int(threads)).tensors()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak": peak_resident() - before,
        "output": sum(each.nbytes for each in found.values()),
    }


def load(file: str, threads: str) -> dict[str, Any]:
    """From nothing but Python, NumPy and zlib to all tensors of a file."""
    import zlib  # noqa: F401

    import numpy.typing  # noqa: F401

    start, cpu = time.perf_counter(), time.process_time()
    from compressor.artifact import read

    imported = time.perf_counter()
    found = read(file, threads=int(threads)).tensors()
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "import_seconds": imported - start,
        "cpu_seconds": time.process_time() - cpu,
        "weights": sum(each.size for each in found.values()),
    }


def resident() -> int:
    """Bytes of memory in use."""
    return status("VmRSS")


def peak_resident() -> int:
    """Most bytes of memory that were in use."""
    return status("VmHWM")


def status(name: str) -> int:
    """A line of /proc/self/status, which is in KiB, as bytes."""
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        **{"encode": encode, "decode": decode, "load": load}
    }
    print(json.dumps(tasks[task](*arguments)))
