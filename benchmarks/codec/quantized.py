"""Bytes and accuracy of `--quantize auto` at many noises, for one trained network, no retraining.

    python -m compressor.benchmarks.codec.quantized resnet20 CHECKPOINT --data cifar10 \\
        -o FILE.json [--noise 0.04 0.05 ...] [--without-data]

What the pipeline's stage does, with sensitivities measured once: from 1,000 training images whose
labels are not looked at, or ``--without-data`` from images made of the norms' statistics. Each
noise is written as a file of profile best without a graph, read back, and evaluated on the test
images. Rows are those of `curves`; `plot` draws them.
"""

import argparse
import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.artifact import decode, encode
from compressor.benchmarks.codec.accuracy import Arrays, Test, float_tensors
from compressor.benchmarks.environment import environment
from compressor.layers import compressible_layers
from compressor.network import Context, Network
from compressor.quantization.calibrated import Quantizer, apply, sensitivities
from compressor.settings import Calibrate
from compressor.storage import stored_tensors

NOISES = tuple(2 ** (quarter / 4) for quarter in range(-22, -7))
NAMES = {True: "ours, 1,000 unlabelled images", False: "ours, no data"}

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()
    test = Test(arguments.arch, arguments.data, arguments.data_root)
    state = float_tensors(arguments.checkpoint)
    with_data = not arguments.without_data
    rows: list[Row] = []
    for noise, size, tensors in points(test, state, arguments.noise, with_data):
        rows.append(
            {
                "network": arguments.arch,
                "method": NAMES[with_data],
                "settings": {"noise": round(noise, 5)},
                "bytes": size,
                "accuracy": round(test.accuracy(tensors), 4),
                "images": len(test.split),
            }
        )
        print(f"noise {noise:.4f}  {size:>9,} B  {rows[-1]['accuracy']:.2f} %", flush=True)
    result = {"benchmark": "codec/quantized", "environment": described, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.quantized")
    described.add_argument("arch", help="a name of the registry")
    described.add_argument("checkpoint", type=Path)
    described.add_argument("--data", required=True, help="cifar10 or mnist")
    described.add_argument("--data-root", type=Path)
    described.add_argument("--without-data", action="store_true")
    described.add_argument("--noise", type=float, nargs="+", default=NOISES)
    described.add_argument("-o", "--output", type=Path, required=True)
    return described


def points(
    test: Test, state: Arrays, noises: Sequence[float], with_data: bool
) -> Iterator[tuple[float, int, Arrays]]:
    """Noise, bytes of the file, and the tensors that it holds."""
    torch.set_num_threads(1)
    module = copy.deepcopy(test.module)
    known = module.state_dict()
    known.update({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    module.load_state_dict(known)
    example = torch.zeros(1, *test.data.input_shape)
    network = Network(module.eval(), example, "network", "network")
    context = Context(data=test.data if with_data else None)
    layers = compressible_layers(module)
    found = sensitivities(network, layers, Calibrate(), context)
    quantizer = Quantizer(module, layers, found)
    for noise in noises:
        apply(quantizer, noise, context)
        blob = encode(stored_tensors(network, "fp16"), profile="best")
        yield noise, len(blob), decode(blob).tensors()


if __name__ == "__main__":
    main()
