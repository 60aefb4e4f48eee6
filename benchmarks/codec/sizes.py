"""The same integers in NNCodec's bitstream and in ours, whole files.

    python -m compressor.benchmarks.codec.sizes CHECKPOINT... --environment FOLDER

NNCodec quantizes each network at each qp, by rounding (dq off: the trellis of dq does not code
levels but paths, which are no integers for another coder). Its levels and steps are then written by
our encoder with each profile, read back, and compared bit for bit with what NNCodec decodes to.
NNCodec's size is its smallest over row skipping and the length of its unary codes. The first part
of each row is of all tensors, batch norm and biases included, the second of the weights alone.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.artifact import decode, encode
from compressor.benchmarks.codec.accuracy import float_tensors
from compressor.benchmarks.codec.profiles import PROFILES, as_tensors
from compressor.benchmarks.codec.rivals.nncodec import Levels, NNCodec, Settings
from compressor.benchmarks.environment import environment

RESULT = Path(__file__).parents[1] / "results" / "codec-sizes.json"
UNARY_LENGTHS = (1, 2, 4, 6, 10)

Row = dict[str, Any]
Arrays = Mapping[str, npt.NDArray[Any]]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()
    rows: list[Row] = []
    with NNCodec(arguments.environment) as codec:
        for path in arguments.checkpoints:
            tensors = float_tensors(path)
            for qp in arguments.qp:
                rows.append({"network": path.stem, "qp": qp, **compared(codec, tensors, qp)})
                show(rows[-1])
    result = {
        "benchmark": "codec/sizes",
        "nncodec": NNCodec.version,
        "environment": described,
        "mean_percent": means(rows),
        "rows": rows,
    }
    print("mean", result["mean_percent"])
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.sizes")
    described.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    described.add_argument("--environment", type=Path, required=True, help="NNCodec's, as built")
    described.add_argument("--qp", type=int, nargs="+", default=[-24, -20, -16])
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def compared(codec: NNCodec, tensors: Arrays, qp: int) -> Row:
    """Bytes of all tensors and of the weights alone, and how much larger ours are in percent."""
    weights = {name: value for name, value in tensors.items() if value.ndim > 1}
    return {"all": sizes(codec, tensors, qp), "weights": sizes(codec, weights, qp)}


def sizes(codec: NNCodec, tensors: Arrays, qp: int) -> Row:
    codec.load(tensors)
    theirs = min(
        int(codec.encode(settings)["bytes"])
        for settings in (
            Settings(qp=qp, use_dq=False, row_skipping=skipping, cabac_unary_length_minus1=unary)
            for skipping in (True, False)
            for unary in UNARY_LENGTHS
        )
    )
    ours = ours_by_profile(codec.integers(), codec.decode())
    percent = {name: round(100 * (size / theirs - 1), 3) for name, size in ours.items()}
    return {"nncodec": theirs, **ours, "percent": percent}


def ours_by_profile(network: Mapping[str, Levels], decoded: Arrays) -> dict[str, int]:
    """Bytes of our file by profile. Raises RuntimeError where one does not decode to the same."""
    written = as_tensors(network)
    found = {}
    for name, settings in PROFILES.items():
        blob = encode(written, **settings)
        for tensor, value in decode(blob).tensors().items():
            if not np.array_equal(value, decoded[tensor]):
                raise RuntimeError(f"profile {name}: tensor {tensor} is not NNCodec's")
        found[name] = len(blob)
    return found


def means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Mean over the rows of the percentages, for each part and profile."""
    return {
        part: {
            name: round(mean(row[part]["percent"][name] for row in rows), 2) for name in PROFILES
        }
        for part in ("all", "weights")
    }


def show(row: Row) -> None:
    for part in ("all", "weights"):
        percent = "  ".join(f"{k} {v:+.2f} %" for k, v in row[part]["percent"].items())
        print(
            f"{row['network']:<20} qp {row['qp']} {part:<8} NNCodec {row[part]['nncodec']:>9,} B  "
            f"{percent}",
            flush=True,
        )


if __name__ == "__main__":
    main()
