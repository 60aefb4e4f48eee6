"""Encoding and decoding speed, side by side with other coders, in one run, on one thread each.

    OMP_NUM_THREADS=1 python -m compressor.benchmarks.codec.speed --environment FOLDER \\
        [--networks CHECKPOINT...]

Two tensors of 4 M weights: 90 % pruned with Laplacian levels left, and dense with 31 Laplacian
levels. Then whole networks, many small tensors, in NNCodec's bitstream and our file. Every round
runs each coder once, so that a slow spell of the machine hits all alike; a ratio is the median of
the rounds' ratios, a speed the weights over the median time. Encoding starts at each coder's own
input in memory; decoding starts at its bytes in memory and ends at float32 weights. The naive
script gets a slice of the tensor. Our own file is coded by the C core, and in ``fast`` by NumPy
too. All output is checked bit for bit.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from compressor.benchmarks.codec.accuracy import float_tensors
from compressor.benchmarks.codec.profiles import PROFILES
from compressor.benchmarks.codec.rivals.coders import (
    LARGEST,
    SETTINGS,
    STEP,
    Bitarray,
    Coder,
    Constriction,
    Naive,
    Nncodec,
    Ours,
    ZstdHalf,
    ZstdIndices,
)
from compressor.benchmarks.codec.rivals.nncodec import Levels, NNCodec
from compressor.benchmarks.environment import environment

RESULT = Path(__file__).parents[1] / "results" / "codec-speed.json"
WAYS = ("encode", "decode")

Row = dict[str, Any]
Times = dict[str, list[float]]
Network = Mapping[str, Levels]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: this compares one thread with one thread")
    described = environment()  # before the work, so that the load is that of others
    rows: list[Row] = []
    ours = [Ours(*profile) for profile in PROFILES.items()]
    ours.append(Ours("fast", PROFILES["fast"], backend="numpy"))
    singles: list[Coder] = [kind(level) for kind in (ZstdHalf, ZstdIndices) for level in (1, 19)]
    singles += [Constriction(), Bitarray(), Naive()]
    with NNCodec(arguments.environment) as codec:
        for name, tensor in tensors(arguments.weights).items():
            coders = [*ours, Nncodec(codec), *singles]
            rows += measured(name, tensor, coders, arguments.rounds)
        for path in arguments.networks:
            coders = [*ours, Nncodec(codec)]
            rows += measured(path.stem, network(codec, path), coders, arguments.rounds)
    result = {
        "benchmark": "codec/speed",
        "threads": 1,
        "rounds": arguments.rounds,
        "versions": {
            "nncodec": NNCodec.version,
            **{name: version(name) for name in ("zstandard", "constriction", "bitarray")},
        },
        "environment": described,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.speed")
    described.add_argument("--environment", type=Path, required=True, help="NNCodec's, as built")
    described.add_argument("--networks", type=Path, nargs="+", default=[], metavar="CHECKPOINT")
    described.add_argument("--weights", type=int, default=4_000_000, help="of each tensor")
    described.add_argument("--rounds", type=int, default=5)
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def tensors(weights: int) -> dict[str, Network]:
    """Two networks of one tensor each, (weights / 2000, 2000), levels of -15 to 15.

    In the pruned one a tenth of the weights is left, and none of these is 0.
    """
    rng = np.random.default_rng(0)
    shape = (max(1, weights // 2000), 2000)
    values = 3 * rng.laplace(size=shape)
    away = np.copysign(np.ceil(np.abs(values)), values)
    found = {
        "90 % pruned, 5 bits": np.where(rng.random(shape) < 0.1, away, 0),
        "dense, 31 levels": np.rint(values),
    }
    return {
        name: {"weight": Levels(levels.clip(-LARGEST, LARGEST).astype(np.int32), STEP)}
        for name, levels in found.items()
    }


def network(codec: NNCodec, checkpoint: Path) -> Network:
    """The integers of NNCodec for a checkpoint."""
    codec.load(float_tensors(checkpoint))
    codec.encode(SETTINGS)
    return codec.integers()


def measured(name: str, tensors: Network, coders: Sequence[Coder], rounds: int) -> list[Row]:
    """One row for each coder, after one round that is not counted."""
    for coder in coders:
        coder.load(tensors)
    times: dict[str, Times] = {coder.name: {way: [] for way in WAYS} for coder in coders}
    for at in range(rounds + 1):
        for coder in coders:
            seconds = {"encode": coder.encode(), "decode": coder.decode()}
            if at == 0:
                coder.check(tensors)
            else:
                for way in WAYS:
                    times[coder.name][way].append(seconds[way] / coder.weights)
    rows = [row(name, coder, times) for coder in coders]
    for each in rows:
        show(each)
    return rows


def row(name: str, coder: Coder, times: dict[str, Times]) -> Row:
    """Speeds, and how many times faster each of our profiles is in the same rounds."""
    found: Row = {
        "tensor": name,
        "coder": coder.name,
        "weights": coder.weights,
        "bytes": coder.bytes,
        "bits_per_weight": round(8 * coder.bytes / coder.weights, 4),
    }
    for way in WAYS:
        mine = times[coder.name][way]
        found[f"{way}_mweights_per_s"] = round(1e-6 / median(mine), 3)
        found[f"{way}_ratio"] = {
            other: round(ratio(mine, times[other][way]), 3)
            for other in times
            if other.startswith("ours")
        }
        found[f"{way}_ns_per_weight"] = [round(1e9 * seconds, 3) for seconds in mine]
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Median over the rounds of their time by ours: above 1 where ours is faster."""
    return median(slow / fast for slow, fast in zip(theirs, ours, strict=True))


def show(row: Row) -> None:
    ratios = "  ".join(
        f"{other} {row['decode_ratio'][other]:.2f}x" for other in row["decode_ratio"]
    )
    print(
        f"{row['tensor']:<20} {row['coder']:<28} {row['bits_per_weight']:.3f} bits  "
        f"encode {row['encode_mweights_per_s']:>8.2f}  decode {row['decode_mweights_per_s']:>8.2f} "
        f"M weights/s  {ratios}",
        flush=True,
    )


if __name__ == "__main__":
    main()
