"""Does CSR pay? Linear layers as sparse products beside both dense baselines.

Each linear layer of a network is multiplied with a batch of inputs in four ways that take turns in
random order in one process: dense in PyTorch and in ONNX Runtime; CSR with 32-bit indices in SciPy
and in PyTorch. Besides the sparsity that it has, each shape is tried at a ladder of sparsities with
random patterns, for the *crossover*: the sparsity from which on CSR takes less time than the faster
of the dense two, and than each of them.
"""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.benchmarks.harness.layers import read_graph
from compressor.benchmarks.harness.runtimes import load_module, open_session
from compressor.benchmarks.harness.subjects import Subject
from compressor.errors import UsageError

Json = dict[str, Any]
Array = NDArray[Any]
LADDER = (0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)
ROUNDS, BURST_SECONDS, MAX_CALLS = 15, 0.003, 100
DENSE, CSR = ("torch", "ort"), ("scipy-csr", "torch-csr")


def compared(subject: Subject, threads: int, batch: int) -> Json:
    """Rows of milliseconds, a layer each, and where CSR begins to pay for each shape."""
    import torch

    torch.set_num_threads(threads)
    weights = linear_weights(subject)
    if not weights:
        raise UsageError("the network has no linear layer")
    rows = [
        {
            "layer": name,
            "shape": list(weight.shape),
            "sparsity": 1 - np.count_nonzero(weight) / weight.size,
            "ms": timed(weight, batch, threads),
        }
        for name, weight in weights.items()
    ]
    shapes = dict.fromkeys(weight.shape for weight in weights.values())
    return {
        "batch": batch,
        "threads": threads,
        "layers": rows,
        "crossovers": [crossover(shape, batch, threads) for shape in shapes],
    }


def linear_weights(subject: Subject) -> dict[str, Array]:
    """(out, in) float32 of every linear layer, by its name."""
    if subject.kind == "checkpoint":
        from compressor.layers import compressible_layers

        found = compressible_layers(load_module(subject)[0])
        return {n: each.weight.numpy() for n, each in found.items() if each.kind == "fc"}
    weights = {}
    graph = read_graph(subject)[1]
    for node in graph.nodes:
        source = graph.source(node.inputs[1]) if node.op in ("Gemm", "MatMul") else None
        if source is not None and graph.weights[source].ndim == 2:
            weights[graph.layer_of(node)[0]] = graph.weights[source].astype(np.float32)
    return weights


def timed(weight: Array, batch: int, threads: int) -> dict[str, float]:
    """Median milliseconds of each way to compute ``x @ weight.T``, x (batch, in)."""
    ways = products(weight, batch, threads)
    bursts = {name: _burst(call) for name, call in ways.items()}
    medians: dict[str, list[float]] = {name: [] for name in ways}
    order, names = random.Random(0), list(ways)
    for _ in range(ROUNDS):
        order.shuffle(names)
        for name in names:
            ways[name]()
            times = []
            for _ in range(bursts[name]):
                begin = time.perf_counter_ns()
                ways[name]()
                times.append(time.perf_counter_ns() - begin)
            medians[name].append(float(np.median(times)) / 1e6)
    return {name: float(np.median(values)) for name, values in medians.items()}


def _burst(call: Callable[[], Any]) -> int:
    """How many calls fill ``BURST_SECONDS``, after some to warm up."""
    for _ in range(3):
        call()
    begin = time.perf_counter()
    call()
    return max(3, min(MAX_CALLS, round(BURST_SECONDS / max(1e-9, time.perf_counter() - begin))))


def products(weight: Array, batch: int, threads: int) -> Mapping[str, Callable[[], Any]]:
    """The four ways, each ready to be called."""
    import torch
    from scipy.sparse import csr_array

    x = np.random.default_rng(0).standard_normal((batch, weight.shape[1])).astype(np.float32)
    sparse = csr_array(weight)
    sparse.indices, sparse.indptr = sparse.indices.astype(np.int32), sparse.indptr.astype(np.int32)
    across = np.ascontiguousarray(x.T)  # (in, batch): CSR times dense wants columns
    dense, given = torch.from_numpy(weight.copy()), torch.from_numpy(x)
    column = torch.from_numpy(across)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the layout is in beta
        rows = torch.sparse_csr_tensor(
            torch.from_numpy(sparse.indptr),
            torch.from_numpy(sparse.indices),
            torch.from_numpy(sparse.data),
            size=weight.shape,
        )
    session = open_session(gemm(weight), threads)
    linear = torch.nn.functional.linear

    def with_torch(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return call()

        return run

    return {
        "torch": with_torch(lambda: linear(given, dense)),
        "ort": lambda: session.run(None, {"input": x}),
        "scipy-csr": lambda: sparse @ across,
        "torch-csr": with_torch(lambda: rows @ column),
    }


def gemm(weight: Array) -> bytes:
    """An ONNX file of one linear layer without bias."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("Gemm", ["input", "weight"], ["output"], transB=1)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("input", weight.shape[1]), ("output", weight.shape[0]))
    ]
    held = [numpy_helper.from_array(np.ascontiguousarray(weight), "weight")]
    graph = helper.make_graph([node], "linear", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def crossover(shape: tuple[int, ...], batch: int, threads: int) -> Json:
    """Milliseconds along ``LADDER``, and the least sparsity from which on CSR stays ahead."""
    draw = np.random.default_rng(0)
    steps = []
    for sparsity in LADDER:
        weight = draw.standard_normal(shape).astype(np.float32)
        weight[draw.random(shape) < sparsity] = 0
        steps.append({"sparsity": sparsity, "ms": timed(weight, batch, threads)})
    pays = {f"{way} against {base}": _first(steps, way, (base,)) for way in CSR for base in DENSE}
    pays |= {f"{way} against both": _first(steps, way, DENSE) for way in CSR}
    return {"shape": list(shape), "steps": steps, "pays_from": pays}


def _first(steps: list[Json], way: str, bases: tuple[str, ...]) -> float | None:
    """The ladder's first sparsity from which on ``way`` is always faster; None: it never is."""
    found = None
    for step in reversed(steps):
        if step["ms"][way] >= min(step["ms"][base] for base in bases):
            break
        found = step["sparsity"]
    return found
