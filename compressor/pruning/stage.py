"""Stage 1: prune by threshold or to a sparsity, retrain the survivors."""

import torch

from compressor.errors import StageError
from compressor.layers import compressible_layers, mask_layer
from compressor.network import Context, Network, Row, StageReport
from compressor.pruning.allocation import Masks, sparsity
from compressor.pruning.curvature import scores
from compressor.pruning.goals import Goal, goal_of, magnitude_masks
from compressor.pruning.ramps import Ramp
from compressor.pruning.refit import refit
from compressor.settings import Prune
from compressor.training.fit import fit
from compressor.training.losses import frozen


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
    by_outputs = settings.criterion == "obs"
    dense = frozen(network.module) if by_outputs else None
    history: list[Row] = []
    for step in range(1, settings.rounds + 1):
        aim = goal.in_round(step, settings.rounds)
        if by_outputs:
            masks = _by_outputs(network, aim, context)
        else:
            masks = magnitude_masks(aim, layers, settings.rate)
        for name, mask in masks.items():
            mask_layer(layers[name], torch.from_numpy(mask).to(layers[name].weight.device))
        if dense is not None:
            refit(network.module, dense, masks, context)
        title = "retrain" if settings.rounds == 1 else f"retrain {step}/{settings.rounds}"
        epochs = fit(network.module, settings.retrain, context, title)
        zeros = sparsity(masks)
        history += [{"round": step, **epoch.row(), "sparsity": zeros} for epoch in epochs]
    return history


def _by_outputs(network: Network, goal: Goal, context: Context) -> Masks:
    """The masks of ``goal`` by what removals cost the outputs. What is zero already goes first."""
    layers = {
        name: layer
        for name, layer in compressible_layers(network.module).items()
        if name in goal.values
    }
    costs = scores(network.module, layers, context)
    masks = goal.masks({name: cost.numpy() for name, cost in costs.items()})
    return {n: mask & (layers[n].weight.cpu().numpy() != 0) for n, mask in masks.items()}


def _while_training(network: Network, goal: Goal, settings: Prune, context: Context) -> list[Row]:
    ramp = Ramp(compressible_layers(network.module), goal, settings)
    epochs = fit(network.module, settings.retrain, context, settings.schedule, ramp)
    ramp.finish(trained=bool(epochs))
    return [
        {"round": 1, **epoch.row(), "sparsity": ramp.sparsities.get(epoch.epoch)}
        for epoch in epochs
    ]
