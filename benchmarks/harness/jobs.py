"""What a worker process does once: describe a file, profile its layers, measure its accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from compressor.benchmarks.harness import layers, runtimes
from compressor.benchmarks.harness.inputs import shapes_of
from compressor.benchmarks.harness.subjects import Subject
from compressor.errors import ExportError, UsageError

Json = dict[str, Any]
BATCH = 250


def describe(request: Json) -> Json:
    """Counts of a network; a checkpoint is also exported to ``request["onnx"]`` if there is one."""
    subject = Subject.from_row(request["subject"])
    if subject.kind == "checkpoint":
        return _describe_module(subject, request.get("onnx"))
    graph, rows = layers.counted(subject)
    parameters = graph.parameters.values()
    found = _counts(rows)
    found["parameters"] = sum(each.size for each in parameters)
    found["nonzero"] = sum(int(np.count_nonzero(each)) for each in parameters)
    if subject.kind == "dcz":
        from compressor import artifact

        read = artifact.read(subject.path)
        found["artifact_bytes"] = read.size
        found["weights_only_bytes"] = read.size_without_graph
    return found


def _counts(rows: list[layers.Layer]) -> Json:
    share = sum(each.macs * each.nonzero / each.parameters for each in rows if each.parameters)
    fixed = sum(each.macs for each in rows if not each.parameters)
    return {
        "macs": sum(each.macs for each in rows),
        "nonzero_macs": round(share) + fixed,
        "layers": [each.row() for each in rows],
    }


def _describe_module(subject: Subject, onnx: str | None) -> Json:
    """By the module itself, since an export folds batch norms and drops what is never used."""
    from compressor.channels.speed import exported
    from compressor.reporting.measure import layer_macs, measure

    network = runtimes.load_checkpoint(subject)
    size = measure(network, layer_macs(network.module, network.example))
    found: Json = {
        "arch": network.arch,
        "macs": size.macs,
        "nonzero_macs": size.nonzero_macs,
        "parameters": size.parameters,
        "nonzero": size.nonzero,
    }
    if onnx is not None:
        try:
            Path(onnx).write_bytes(exported(network))
        except ExportError as error:
            return {**found, "export_error": str(error)}
        rows = layers.counted(Subject(onnx, "onnx", subject.label))[1]
        found["layers"] = [each.row() for each in rows]
    return found


def profile_layers(request: Json) -> Json:
    """Milliseconds of every layer in ONNX Runtime, and of the rest by operator."""
    subject = Subject.from_row(request["subject"])
    graph, rows = layers.counted(subject)
    times, total = layers.timed(
        subject, rows, graph, request["calls"], request["batch"], request["threads"]
    )
    found = [{**each.row(), "ms": times.pop(each.name, None)} for each in rows]
    return {"layers": found, "others": times, "kernels_ms": total}


def accuracy(request: Json) -> Json:
    """Top-1 on the test images, a bit an image: was it right?"""
    from compressor.training import data as datasets

    subject = Subject.from_row(request["subject"])
    runtime = runtimes.open_runtime(request["runtime"], subject, request["device"])
    runtime.prepare(1, request["threads"])
    shape = _image_shape(runtime)
    spec = request["data"]
    data = datasets.load(
        spec["spec"],
        input_shape=shape,
        root=Path(spec["root"]) if spec["root"] else None,
        mean=spec["mean"],
        std=spec["std"],
    )
    right: list[bool] = []
    for x, y in datasets.batches(data.test, data, batch_size=_batch(runtime)):
        runtime.feed(x.numpy())
        found = runtime.arrays(runtime.call())[0]
        right += (found.argmax(1) == y.numpy()).tolist()
    return {"right": [int(each) for each in right], "data": data.name, "classes": data.classes}


def _image_shape(runtime: runtimes.Runtime) -> tuple[int, int, int]:
    if isinstance(runtime, runtimes.OnnxRuntime):
        declared = runtimes.declared_inputs(runtime.session)
        shapes = shapes_of(declared, runtime.subject.shapes, 1)
        shape = next(iter(shapes.values()))[1:]
    else:
        shape = cast(runtimes.TorchRuntime, runtime).shape
    if len(shape) != 3:
        raise UsageError(f"--data needs a network for images (C, H, W), not for input {shape}")
    return shape[0], shape[1], shape[2]


def _batch(runtime: runtimes.Runtime) -> int:
    """As many images at once as the file allows."""
    if isinstance(runtime, runtimes.OnnxRuntime):
        size = runtimes.declared_inputs(runtime.session)[0].shape[0]
        return size if isinstance(size, int) and size > 0 else BATCH
    return BATCH


def sparse(request: Json) -> Json:
    from compressor.benchmarks.harness.sparse import compared

    return compared(Subject.from_row(request["subject"]), request["threads"], request["batch"])


JOBS: dict[str, Callable[[Json], Json]] = {
    "describe": describe,
    "profile": profile_layers,
    "accuracy": accuracy,
    "sparse": sparse,
}
