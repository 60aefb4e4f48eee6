"""What others make of the network, each as its documentation tells users to."""

import gzip
from collections.abc import Iterator

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn
from torch.nn.utils import prune

from compressor.benchmarks.channels.rivals import environment as torch_pruning_environment
from compressor.benchmarks.channels.rivals import torch_pruning_weights
from compressor.benchmarks.codec.rivals import environment as nncodec_environment
from compressor.benchmarks.codec.rivals.nncodec import NNCodec, Settings
from compressor.benchmarks.harness.sizes import zstd
from compressor.benchmarks.peers import int8
from compressor.benchmarks.peers.rows import NO_DATA, Arrays, Made, Work
from compressor.layers import compressible_layers
from compressor.training.data import Split
from compressor.training.evaluation import evaluate

TORCH_PRUNING = f"Torch-Pruning {torch_pruning_environment.VERSION}"
NNCODEC = f"NNCodec {NNCodec.version}"
ZSTD_LEVEL = 19
QPS = range(-32, -15, 2)
VALIDATION = 2000
DROP = 0.5
"""Points of accuracy on validation images within which NNCodec's step is chosen."""


def general(work: Work) -> Iterator[Made]:
    """The checkpoint itself, half floats, and a general compressor on both."""
    wide = work.tensors()
    dense, content = work.model_of(wide), save(wide)
    yield Made("fp32", "PyTorch", NO_DATA, ".safetensors", len(content), dense)
    yield from _compressed("fp32", "PyTorch", NO_DATA, content, dense)
    halves = {name: value.astype(np.float16) for name, value in wide.items()}
    model = work.model_of({name: value.astype(np.float32) for name, value in halves.items()})
    yield from _compressed("fp16", "PyTorch", NO_DATA, save(halves), model)


def _compressed(method: str, tool: str, needs: str, content: bytes, model: bytes) -> Iterator[Made]:
    sizes = {"gzip": len(gzip.compress(content, 9, mtime=0)), "zstd": zstd(content, ZSTD_LEVEL)}
    for name, size in sizes.items():
        if size is not None:  # zstandard is not installed
            yield Made(f"{method}, {name}", tool, needs, f".safetensors, {name}", size, model)


def weights(work: Work) -> Iterator[Made]:
    """torch.nn.utils.prune: the smallest weights of all layers together, then one pass."""
    network = work.network()
    layers = [layer.module for layer in compressible_layers(network.module).values()]
    pairs = [(layer, "weight") for layer in layers]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=work.task.sparsity)
    work.retrained(network.module, "torch.nn.utils.prune")
    for layer in layers:
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
    content = save(work.tensors(network.module))
    name = f"{100 * work.task.sparsity:g} % of the weights pruned"
    tool = "torch.nn.utils.prune"
    yield from _compressed(name, tool, work.trained_on, content, work.model(network.module))


def channels(work: Work) -> Iterator[Made]:
    """Torch-Pruning: uniform ratio, its default criterion, then one pass."""
    task = work.task
    folder = task.environments / "torch-pruning"
    torch_pruning_environment.build(folder)
    dense = work.network().module
    settings = torch_pruning_weights.Settings(task.macs)
    module = torch_pruning_weights.prune(folder, task.arch, dense, settings)
    model = work.model(work.retrained(module, TORCH_PRUNING))
    name = f"channels, {100 * task.macs:g} % of the MACs left"
    yield Made(name, TORCH_PRUNING, work.trained_on, ".onnx", len(model), model)


def integers(work: Work) -> Iterator[Made]:
    """ONNX Runtime's static quantization, with ranges from training images.

    Its default has signed activations; x86 is faster with unsigned ones, which this tool chooses.
    """
    tool = int8.build(work.task.environments / "onnxruntime")
    dense = work.model(work.network().module)
    needs = f"{min(int8.IMAGES, len(work.data.train))} images, no labels"
    for method, activations in (("INT8", "QInt8"), ("INT8, uint8 activations", "QUInt8")):
        model = tool.quantize(dense, work.data, activations)
        yield Made(method, tool.name, needs, ".onnx", len(model), model)


def codec(work: Work) -> Iterator[Made]:
    """NNCodec as it comes, and with a step chosen among nine by validation images."""
    folder = work.task.environments / "nncodec"
    nncodec_environment.build(folder)
    tensors = work.tensors()
    with NNCodec(folder) as coder:
        coder.load(tensors)
        size = int(coder.encode(Settings())["bytes"])
        model = work.model_of(coder.decode())
        yield Made("default settings", NNCODEC, NO_DATA, ".nnc", size, model)
        size, decoded = _coarsest(work, coder, tensors)
    count = len(_some(work.data.validation))
    needs = f"{count:,} labelled images, to choose 1 of {len(QPS)} steps"
    yield Made("step chosen", NNCODEC, needs, ".nnc", size, work.model_of(decoded))


def _coarsest(work: Work, coder: NNCodec, tensors: Arrays) -> tuple[int, Arrays]:
    """The smallest file that keeps accuracy on validation images within DROP of fp32's.

    With dependent quantization, rows of zeros skipped and batch norms folded: what was best of 57
    settings that ``codec.rivals.tuning`` tried.
    """
    module = work.network().module
    full = _validated(work, module, tensors)
    best: tuple[int, Arrays] | None = None
    for qp in QPS:
        norms = any(name.endswith("running_mean") for name in tensors)
        settings = Settings(qp=qp, nonweight_qp=-38, bnf=norms, row_skipping=True)
        size = int(coder.encode(settings)["bytes"])
        decoded = coder.decode()
        if _validated(work, module, decoded) >= full - DROP and (best is None or size < best[0]):
            best = size, decoded
    if best is None:
        raise RuntimeError(f"no step keeps accuracy within {DROP} points")
    return best


def _validated(work: Work, module: nn.Module, tensors: Arrays) -> float:
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    module.load_state_dict(state, strict=False)
    return 100 * evaluate(
        module.to(memory_format=torch.channels_last),
        work.data,
        _some(work.data.validation),
        batch_size=50,
    )


def _some(images: Split) -> Split:
    return images.take(torch.arange(min(VALIDATION, len(images))))
