"""Re-encode .dcz files with each profile: bytes by mode and in all, and seconds.

    python -m compressor.benchmarks.codec FILE.dcz... [-o RESULT.json]

The tensors of each file, shared ones with their indices and codebooks, are written again with
profile huffman (the paper's storage), fast and best (the smallest of all modes), and read back;
what comes back is compared bit for bit. Sizes are without the graph, which no coder changes. Then
two tensors of ``--weights`` weights are timed, one pruned to 10 %, one dense with 31 levels.
"""

import argparse
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.artifact import Artifact, Profile, Shared, decode, encode, read
from compressor.benchmarks.environment import environment

RESULT = Path(__file__).parents[1] / "results" / "codec.json"
PROFILES: tuple[Profile, ...] = ("huffman", "fast", "best")

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()  # before the work, so that the load is that of others
    rows = [row for path in arguments.files for row in re_encode(label(path), read(path))]
    rows += [row for name, w in synthetic(arguments.weights).items() for row in timed(name, w)]
    result = {"benchmark": "codec", "threads": 1, "environment": described, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec")
    described.add_argument("files", type=Path, nargs="*", metavar="FILE.dcz")
    described.add_argument("--weights", type=int, default=10_000_000, help="of each timed tensor")
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def label(path: Path) -> str:
    """The file's name and the CRC-32 of its content, since many a file is called lenet5."""
    return f"{path.stem} {zlib.crc32(path.read_bytes()):08x}"


def re_encode(name: str, artifact: Artifact) -> list[Row]:
    """One row for each profile, with the size relative to the first, Huffman's."""
    tensors: dict[str, Any] = {}
    for tensor in artifact.names:
        shared = artifact.shared(tensor)
        tensors[tensor] = artifact.tensor(tensor) if shared is None else shared
    rows = []
    for profile in PROFILES:
        rows.append(measured(name, tensors, profile, artifact.metadata))
        rows[-1]["relative"] = rows[-1]["bytes"] / rows[0]["bytes"]
        show(rows[-1])
    return rows


def timed(name: str, tensor: Shared) -> list[Row]:
    """The same for one large tensor."""
    rows = [measured(name, {name: tensor}, profile, {}) for profile in PROFILES]
    for row in rows:
        row["relative"] = row["bytes"] / rows[0]["bytes"]
        show(row)
    return rows


def measured(
    name: str, tensors: Mapping[str, Any], profile: Profile, metadata: Mapping[str, str]
) -> Row:
    start = time.perf_counter()
    blob = encode(tensors, profile=profile, metadata=metadata)
    written = time.perf_counter()
    artifact = decode(blob)
    found = artifact.tensors()
    done = time.perf_counter()
    for tensor, expected in tensors.items():
        dense = expected.dense() if isinstance(expected, Shared) else expected
        if found[tensor].tobytes() != dense.tobytes():
            raise RuntimeError(f"{name}: tensor {tensor} does not come back")
    modes: dict[str, int] = {}
    for entry in artifact.entries:
        modes[entry.mode.name] = modes.get(entry.mode.name, 0) + entry.bytes
    return {
        "file": name,
        "profile": profile,
        "weights": sum(entry.elements for entry in artifact.entries),
        "bytes": artifact.size,
        "overhead": artifact.overhead,
        "bytes_by_mode": modes,
        "encode_seconds": round(written - start, 3),
        "decode_seconds": round(done - written, 3),
    }


def synthetic(weights: int) -> dict[str, Shared]:
    """Two tensors of about ``weights`` weights: Laplacian, 90 % pruned; normal, all 31 levels."""
    rng = np.random.default_rng(0)
    shape = (max(1, weights // 4000), 4000)
    levels = np.rint(3 * rng.laplace(size=shape)).clip(-15, 15).astype(np.int8)
    kept = rng.random(shape) < 0.1
    pruned = np.where(kept, levels + 16, 0).astype(np.uint8)
    dense = (np.rint(4 * rng.standard_normal(shape)).clip(-15, 15) + 16).astype(np.uint8)
    codebook = np.arange(-15, 16).astype(np.float32)
    return {"90 % pruned": Shared(pruned, codebook), "dense 5-bit": Shared(dense, codebook)}


def show(row: Row) -> None:
    modes = "  ".join(f"{mode} {size:,}" for mode, size in row["bytes_by_mode"].items())
    speed = [
        row["weights"] / max(row[f"{way}_seconds"], 1e-3) / 1e6 for way in ("encode", "decode")
    ]
    print(
        f"{row['file']:<28} {row['profile']:<8} {row['bytes']:>10,} B  {row['relative']:.4f}  "
        f"{speed[0]:.1f} / {speed[1]:.1f} M weights/s  {modes}",
        flush=True,
    )


if __name__ == "__main__":
    main()
