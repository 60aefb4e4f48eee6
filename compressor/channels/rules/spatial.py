"""Spatial operators, which leave channels alone."""

import torch
from torch import fx

from compressor.channels.labels import spread, varying
from compressor.channels.propagation import Propagation, Value, sizes
from compressor.channels.rules.registry import arguments_of, given, rule


@rule(
    *(
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "lp_pool2d",
    ),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_trilinear3d", "interpolate", "max_pool2d_with_indices", "upsample_nearest3d"),
)
def pool(graph: Propagation, node: fx.Node) -> Value:
    source = graph.of(given(node)[0])
    value = node.meta["val"]
    if isinstance(value, list | tuple):
        first, rest = value[0], value[1:]
        made = spread(graph.along(source, 1, node), 1, sizes(first.shape))
        return [made, *(torch.zeros((), dtype=torch.int64).expand(sizes(v.shape)) for v in rest)]
    axis = source.ndim - (len(value.shape) - 1)  # without a batch, the channels stand first
    return spread(graph.along(source, axis, node), axis, sizes(value.shape))


@rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def pad(graph: Propagation, node: fx.Node) -> Value:
    """Channels that are added are zero: new ones, which may be removed like any other."""
    source, amounts = graph.of(given(node)[0]), sizes(given(node)[1])
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    zeros = arguments_of(node).get("mode", "constant") == "constant" and not arguments_of(node).get(
        "value"
    )
    labels = source
    for back, (before, after) in enumerate(pairs, start=1):
        axis = source.ndim - back
        if not before and not after:
            continue
        if axis not in varying(source):
            shape = list(labels.shape)
            shape[axis] += before + after
            labels = labels.narrow(axis, 0, 1).expand(shape)
            continue
        if not zeros or before < 0 or after < 0:
            return None
        known = graph.along(source, axis, node)
        known = torch.cat([graph.labels.fresh(before), known, graph.labels.fresh(after)])
        shape = list(labels.shape)
        shape[axis] = len(known)
        labels = spread(known, axis, tuple(shape))
    return labels
