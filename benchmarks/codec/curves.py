"""Bytes of a file and accuracy of what it decodes to, for one trained network, no retraining.

    python -m compressor.benchmarks.codec.curves resnet20 CHECKPOINT --data cifar10 -o FILE.json \\
        [--dcz NAME=FILE.dcz ...]

Rows of the simple methods (`rivals.general`): fp32, fp16, INT8 per channel, zstd of both, and Deep
Compression as the textbook has it, at 2 to 8 bits; it prunes nothing that is not pruned already.
``--dcz`` adds a row for each of our files under the name given. NNCodec's rows come from
`rivals.tuning`. `plot` draws them all.

Every row has network, method, settings, bytes, accuracy (percent, top-1) and the number of test
images. Bytes of a .dcz are without its graph, which no other method stores.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compressor.artifact import read
from compressor.benchmarks.codec.accuracy import Test, float_tensors
from compressor.benchmarks.codec.rivals.general import METHODS
from compressor.benchmarks.environment import environment

Row = dict[str, Any]
Tensors = Mapping[str, Any]
Point = tuple[str, int, Tensors]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()
    test = Test(arguments.arch, arguments.data, arguments.data_root)
    rows = []
    known: dict[str, float] = {}  # zstd does not change what a file decodes to
    for method, size, tensors in points(arguments):
        network = digest(tensors)
        if network not in known:
            known[network] = round(test.accuracy(tensors), 4)
        accuracy = known[network]
        key = {"network": arguments.arch, "method": method, "settings": {}}
        rows.append({**key, "bytes": size, "accuracy": accuracy, "images": len(test.split)})
        print(f"{arguments.arch} {method:<26} {size:>10,} B  {accuracy:.2f} %", flush=True)
    result = {
        "benchmark": "codec/curves",
        "versions": {name: version(name) for name in ("safetensors", "zstandard")},
        "environment": described,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.curves")
    described.add_argument("arch", help="a name of the registry")
    described.add_argument("checkpoint", type=Path)
    described.add_argument("--data", required=True, help="cifar10 or mnist")
    described.add_argument("--data-root", type=Path)
    described.add_argument("--dcz", nargs="+", default=[], metavar="NAME=FILE.dcz")
    described.add_argument("-o", "--output", type=Path, required=True)
    return described


def digest(tensors: Tensors) -> str:
    """SHA-256 of the names and values."""
    found = hashlib.sha256()
    for name, value in tensors.items():
        found.update(name.encode() + value.tobytes())
    return found.hexdigest()


def points(arguments: argparse.Namespace) -> Iterator[Point]:
    """Method, bytes and decoded tensors."""
    tensors = float_tensors(arguments.checkpoint)
    for name, method in METHODS.items():
        yield (name, *method(tensors))
    for word in arguments.dcz:
        name, _, path = word.partition("=")
        artifact = read(path)
        yield name, artifact.size_without_graph, artifact.tensors()


if __name__ == "__main__":
    main()
