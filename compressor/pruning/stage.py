"""Stage 1: prune by threshold, retrain the survivors."""

import torch

from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_layer
from compressor.network import Context, Network, Row, StageReport
from compressor.pruning.thresholds import deviation, magnitude_mask
from compressor.settings import Prune
from compressor.training.fit import fit


def prune(network: Network, settings: Prune, context: Context) -> StageReport:
    """Mask the layers that the rules name, retrain; a report row per layer, one per epoch.

    A layer's threshold is its sensitivity times the standard deviation of the weights it came
    with. In round r of n the threshold is r / n of that; what an earlier round pruned stays
    pruned. Raises :class:`StageError` where a layer would vanish or a rule fits no layer.
    """
    layers = compressible_layers(network.module)
    if not layers:
        raise StageError(f"{network.name} has no convolution or linear layer to prune")
    wanted = settings.rules.resolve({n: layer.kind for n, layer in layers.items()})
    thresholds = {
        name: sensitivity * deviation(layers[name].weight.cpu().numpy(), name)
        for name, sensitivity in wanted.items()
    }
    history: list[Row] = []
    for step in range(1, settings.rounds + 1):
        for name, threshold in thresholds.items():
            weight = layers[name].weight
            mask = magnitude_mask(weight.cpu().numpy(), threshold * (step / settings.rounds), name)
            mask_layer(layers[name], torch.from_numpy(mask).to(weight.device))
        title = "retrain" if settings.rounds == 1 else f"retrain {step}/{settings.rounds}"
        epochs = fit(network.module, settings.retrain, context, title)
        history += [{"round": step, **epoch.row()} for epoch in epochs]
    rows = [
        {"layer": name, "sensitivity": wanted[name], "threshold": threshold}
        for name, threshold in thresholds.items()
    ]
    return StageReport(rows, history)
