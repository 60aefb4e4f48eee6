"""One network of the coverage: cut by half, proved, exported, run. Prints one line of JSON.

    python -m compressor.benchmarks.channels.covered torchvision:resnet18

All by the product's own code: groups of the dependency analysis, L2, uniform, widths as they fall.
Beside the product's proof stands a second oracle that shares less with it: the user's own module
with the removed slices zeroed and its own ``forward`` (not for norms over channels, whose
statistics would count what is removed).
"""

import argparse
import copy
import json
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from compressor.benchmarks.channels.networks import Built, attempted, build
from compressor.channels.allocation import uniform, worth
from compressor.channels.cost import Macs
from compressor.channels.cutting import Cut, cut
from compressor.channels.dependencies import Dependencies
from compressor.channels.importance import importance
from compressor.channels.limits import Limits
from compressor.channels.proof import compare, run, zero
from compressor.export import graph, onnx, verify
from compressor.reporting.measure import layer_macs
from compressor.storage import plain_state
from compressor.tracing import traced

RATIO, KEEP = 0.5, 3
TOLERANCE = 1e-5
OPSET = 18
BATCHES = (1, 3)
"""Batches that ONNX Runtime is checked with; the file is traced with 2."""

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.channels.covered")
    described.add_argument("network")
    name = described.parse_args(words).network
    torch.set_num_threads(1)
    print(json.dumps(attempted(name, cover)), flush=True)


def cover(row: Row) -> None:
    """Fill ``row`` step by step; what it holds stays where a step raises."""
    network = build(row["network"])
    module, example = network.module, torch.zeros(1, *network.shape)
    row.update(step="export", input=list(network.shape), seconds={})
    begin = perf_counter()
    program = traced(module, example)
    row["seconds"]["export"] = _since(begin)
    row["step"] = "analysis"
    begin = perf_counter()
    dependencies = Dependencies(module, example, program=program)
    row["seconds"]["analysis"] = _since(begin)
    row.update(analysed(dependencies))
    row["step"] = "cut"
    groups = dependencies.groups
    worths = worth(groups, importance(dependencies, module, "l2"), raw=False)
    wanted = uniform(groups, worths, [RATIO] * len(groups))
    removed = Limits.of(Macs(dependencies), KEEP, 1).met(wanted, worths)
    if not len(removed):
        raise RuntimeError("nothing can be removed")
    begin = perf_counter()
    made = cut(module, example, dependencies, removed)
    row["seconds"]["cut_and_proof"] = _since(begin)
    row.update(
        {"rewritten": made.rewritten, "why_rewritten": made.why, "proof": made.proof.row()},
        masked_module=second_oracle(network, made, dependencies, removed),
        **sizes(module, made.module, example),
    )
    if row["masked_module"] is not None and not row["masked_module"] <= TOLERANCE:
        raise RuntimeError("a silent error: the masked module itself computes something else")
    row["step"] = "onnx"
    row.update(exported(made.module, example, row["seconds"]))
    row["step"] = "done"


def analysed(dependencies: Dependencies) -> Row:
    """How many layers make channels, and what froze how many of them."""
    frozen = dependencies.frozen()
    wholly = [each for each in frozen if each["channels"] == each["of"]]
    return {
        "layers": len(dependencies.graph.makers),
        "groups": len(dependencies.groups),
        "frozen_layers": len(wholly),
        "partly_frozen_layers": len(frozen) - len(wholly),
        "frozen_by": dict(Counter(each["reason"].partition(" in ")[0] for each in frozen)),
        "frozen": frozen,
        "unknown_operators": dependencies.graph.unknown,
    }


def second_oracle(
    network: Built, made: Cut, dependencies: Dependencies, removed: Any
) -> float | None:
    """Relative difference in float64 to the module with zeroed slices; None where it cannot say."""
    if any(isinstance(each, nn.LayerNorm | nn.GroupNorm) for each in network.module.modules()):
        return None
    masked = copy.deepcopy(network.module)
    tensors = (*masked.named_parameters(), *masked.named_buffers())
    zero({name: value.data for name, value in tensors}, dependencies.keep(removed))
    x = torch.randn(2, *network.shape, generator=torch.Generator().manual_seed(1)).double()
    return compare(run(masked, x), run(made.module, x))


def sizes(dense: nn.Module, small: nn.Module, example: Tensor) -> Row:
    before, after = (sum(each.numel() for each in net.parameters()) for net in (dense, small))
    macs = [layer_macs(net, example)[""] for net in (dense, small)]
    return {
        "parameters": [before, after],
        "macs": macs,
        "parameters_ratio": round(before / after, 3),
        "macs_ratio": round(macs[0] / macs[1], 3),
    }


def exported(module: nn.Module, example: Tensor, seconds: Row) -> Row:
    """The ONNX file of the small network, compared with PyTorch at several batches."""
    begin = perf_counter()
    model = onnx.build(graph.trace(module, example, OPSET), plain_state(module), {})
    seconds["onnx"] = _since(begin)
    found = {}
    for count in BATCHES:
        generator = torch.Generator().manual_seed(count)
        inputs = torch.randn(count, *example.shape[1:], generator=generator)
        found[str(count)] = verify.check(model, module, inputs, TOLERANCE).relative
    return {"onnx_bytes": len(model), "onnx_difference": found}


def _since(begin: float) -> float:
    return round(perf_counter() - begin, 3)


if __name__ == "__main__":
    main()
