"""Stage 1: prune by threshold or to a sparsity, retrain the survivors."""

import torch

from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_layer
from compressor.network import Context, Network, Row, StageReport
from compressor.pruning.allocation import Masks
from compressor.pruning.goals import Goal, goal_of, magnitude_masks
from compressor.pruning.ramps import Ramp
from compressor.settings import Prune
from compressor.training.fit import fit


def prune(network: Network, settings: Prune, context: Context) -> StageReport:
    """Mask the layers that the rules name, retrain; a report row per layer, one per epoch.

    A layer's threshold is its sensitivity times the standard deviation of the weights it came
    with. In rounds, what an earlier one pruned stays pruned. Raises :class:`StageError` where a
    layer would vanish, a rule fits no layer or weights are not finite.
    """
    layers = compressible_layers(network.module)
    if not layers:
        raise StageError(f"{network.name} has no convolution or linear layer to prune")
    goal = goal_of(layers, settings)
    schedule = _in_rounds if settings.schedule == "rounds" else _while_training
    history = schedule(network, goal, settings, context)
    return StageReport([{"layer": name, **goal.row(name)} for name in goal.values], history)


def _in_rounds(network: Network, goal: Goal, settings: Prune, context: Context) -> list[Row]:
    layers = compressible_layers(network.module)
    history: list[Row] = []
    for step in range(1, settings.rounds + 1):
        masks = magnitude_masks(goal.in_round(step, settings.rounds), layers, settings.rate)
        for name, mask in masks.items():
            mask_layer(layers[name], torch.from_numpy(mask).to(layers[name].weight.device))
        title = "retrain" if settings.rounds == 1 else f"retrain {step}/{settings.rounds}"
        epochs = fit(network.module, settings.retrain, context, title)
        sparsity = _sparsity(masks)
        history += [{"round": step, **epoch.row(), "sparsity": sparsity} for epoch in epochs]
    return history


def _while_training(network: Network, goal: Goal, settings: Prune, context: Context) -> list[Row]:
    ramp = Ramp(compressible_layers(network.module), goal, settings)
    epochs = fit(network.module, settings.retrain, context, settings.schedule, ramp.after_step)
    ramp.finish(trained=bool(epochs))
    return [
        {"round": 1, **epoch.row(), "sparsity": ramp.sparsities.get(epoch.epoch)}
        for epoch in epochs
    ]


def _sparsity(masks: Masks) -> float:
    """Of all these layers together."""
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.size for m in masks.values())
