"""What an epoch costs beside the bare passes through the network: ResNet-20 on CIFAR-10.

    OMP_NUM_THREADS=2 python -m compressor.benchmarks.training --data-root FOLDER

A training step of the tool draws, augments and normalises images, runs forwards and backwards and
moves the weights. ``bare`` is one forward and one backward pass on a batch that lies ready, in
torch's own layout, which is what a plain loop pays at least; ``bare_channels_last`` has images and
weights in the layout that convolutions like better. Rounds of all three alternate; each round of
the tool's is a whole training, with its evaluation, on as many images. Ratios are those of the
rounds' seconds, with their median and extremes. Writes ``results/training.json``.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from compressor.benchmarks.environment import command_line
from compressor.benchmarks.experiments import Json, save
from compressor.models import registry
from compressor.network import Context
from compressor.settings import Training
from compressor.training import data as datasets
from compressor.training.data import Data, batches
from compressor.training.fit import fit

BATCH = 128
ASKED = 1.3


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.training")
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--images", type=int, default=6400, help="training images of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    module = registry.get(options.arch).build()
    data = part(
        datasets.load(
            options.data, input_shape=registry.get(options.arch).input_shape, root=options.data_root
        ),
        options.images,
    )
    times = measured(module, data, options.rounds)
    content = {**summary(times), "network": options.arch, "data": data.name, "batch": BATCH}
    content |= {"images": len(data.train), "validation_images": len(data.validation)}
    content |= {"threads": options.threads, "seconds": times}
    print(content)
    save("training", content, [command_line()])


def part(data: Data, images: int) -> Data:
    """So many training images, and a ninth as many for validation, as in a whole epoch."""
    held = torch.arange(min(images // 9, len(data.validation)))
    train = data.train.take(torch.arange(min(images, len(data.train))))
    return replace(data, train=train, validation=data.validation.take(held))


def measured(module: nn.Module, data: Data, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each way, after one round that does not count."""
    last = copy.deepcopy(module).to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], None]] = {
        "tool": lambda: train(module, data),
        "bare": lambda: passes(module, data, torch.contiguous_format),
        "bare_channels_last": lambda: passes(last, data, torch.channels_last),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if number:
                found[name].append(round(time.perf_counter() - begin, 3))
    return found


def train(module: nn.Module, data: Data) -> None:
    """One epoch of the tool's training."""
    fit(module, Training(epochs=1, lr=0.01, batch_size=BATCH), Context(data), "train")


def passes(module: nn.Module, data: Data, lie: torch.memory_format) -> None:
    """As many forward and backward passes as the epoch has batches, all on one batch."""
    x, y = next(batches(data.train, data, batch_size=BATCH))
    x = x.contiguous(memory_format=lie)
    module.train()
    for _ in range(len(data.train) // BATCH):
        module.zero_grad(set_to_none=True)
        functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]


def summary(times: dict[str, list[float]]) -> Json:
    """The tool's seconds over those of the bare passes of the same round."""
    ratios = {
        name: [mine / other for mine, other in zip(times["tool"], times[name], strict=True)]
        for name in times
        if name != "tool"
    }
    found: Json = {
        f"ratio_to_{name}": {
            "median": round(statistics.median(values), 3),
            "least": round(min(values), 3),
            "most": round(max(values), 3),
        }
        for name, values in ratios.items()
    }
    return {**found, "asked": ASKED, "met": statistics.median(ratios["bare"]) <= ASKED}


if __name__ == "__main__":
    main()
