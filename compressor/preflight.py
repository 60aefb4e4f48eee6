"""What can be known before a run touches its folder: what is wrong, and what it will do."""

from typing import Any

from torch.nn.utils import parametrize

from compressor.channels import preview
from compressor.determinism import find_device
from compressor.errors import DataError, StageError, UsageError
from compressor.examples import one_image
from compressor.export import onnx, optional
from compressor.layers import compressible_layers, trained_weight
from compressor.network import Network
from compressor.pruning.goals import goal_of, magnitude_masks
from compressor.recipe import Recipe
from compressor.training.data import Data
from compressor.training.evaluation import check_fit
from compressor.training.slimming import scales

Row = dict[str, Any]


def check(network: Network, recipe: Recipe, data: Data | None) -> list[Row]:
    """A row per layer: weights, threshold, sparsity before retraining, bits. Changes nothing.

    Raises :class:`CompressorError` for a device that is not there, images of another shape than
    the network's, data with more classes than it has outputs, INT8 without data, files that are too
    small for the network, a rule that fits no layer, a layer that would vanish, layers that are
    tied or parametrized by their owner, or slimming without a batch norm.
    """
    find_device(recipe.device)
    budget = recipe.calibrate is not None and recipe.calibrate.max_drop is not None
    if budget and (data is None or not len(data.validation)):
        raise UsageError(
            "calibrate.max_drop needs data with validation images: give --data, or leave it out "
            "(--max-drop)"
        )
    if "int8" in recipe.export.emit and data is None:
        raise UsageError(
            "export.emit int8 needs images to calibrate with: give --data, or leave int8 out "
            "(--emit)"
        )
    if is_large(network):
        optional.check_small(recipe.export)
    criterion = None if recipe.channels is None else recipe.channels.criterion
    if criterion in ("taylor", "obs") and data is None:
        raise UsageError(f"channels.criterion {criterion} needs data: give --data (--criterion)")
    if recipe.prune is not None and recipe.prune.schedule == "movement" and data is None:
        raise UsageError("prune.schedule movement needs data: give --data (--schedule)")
    if recipe.prune is not None and recipe.prune.criterion == "obs" and data is None:
        raise UsageError("prune.criterion obs needs data: give --data (--criterion)")
    _check_task(recipe, data)
    _check_layers(network)
    if any(training.slimming for training in recipe.trainings.values()):
        scales(network.module)
    if data is not None:
        _check_images(network, data)
        check_fit(network.module, one_image(network.example), data)
    return _plan(network, recipe)


def is_large(network: Network) -> bool:
    """Whether its weights are more than one ONNX file can hold."""
    return not onnx.fits(sum(value.nbytes for value in network.module.state_dict().values()))


def _check_task(recipe: Recipe, data: Data | None) -> None:
    """Right and wrong answers are counted of classifications alone."""
    if data is None or data.task.labels:
        return
    if recipe.calibrate is not None and recipe.calibrate.max_drop is not None:
        raise UsageError(
            f"calibrate.max_drop counts right answers, and --task measures {data.task.metric}: "
            "leave it out (--max-drop)"
        )


def _check_images(network: Network, data: Data) -> None:
    """Refuse data that was loaded for another network; ``load`` itself asks for the shape."""
    shape = tuple(one_image(network.example).shape[1:])
    if data.input_shape != shape:
        raise DataError(
            f"{data.name}: the images are {data.input_shape} (channels, height, width), the "
            f"network takes {shape}: load the data with that input_shape"
        )


def _check_layers(network: Network) -> None:
    """Refuse what the stages cannot put a mask or a codebook on without changing more than it."""
    owners: dict[int, str] = {}
    for name, layer in compressible_layers(network.module).items():
        if not name:
            raise StageError("the network is one bare layer: wrap it in torch.nn.Sequential")
        if parametrize.is_parametrized(layer.module, layer.leaf):
            raise StageError(
                f"{name} is parametrized already (weight norm or the like): take that off with "
                "torch.nn.utils.parametrize.remove_parametrizations, then compress"
            )
        first = owners.setdefault(id(trained_weight(layer)), name)
        if first != name:
            raise StageError(f"{first} and {name} share one weight: untie them, then compress")


def _plan(network: Network, recipe: Recipe) -> list[Row]:
    layers = compressible_layers(network.module)
    kinds = {name: layer.kind for name, layer in layers.items()}
    goal = goal_of(layers, recipe.prune) if recipe.prune else None
    # How the costs that "obs" finds share a sparsity out is not known beforehand.
    unknown = recipe.prune is not None and recipe.prune.criterion == "obs"
    masks = magnitude_masks(goal, layers) if goal and not unknown else {}
    bits = recipe.share.rules.resolve(kinds) if recipe.share else {}
    if recipe.share is not None:
        recipe.share.sizes.resolve(kinds)
    widths = preview(network, recipe.channels) if recipe.channels else {}
    rows: list[Row] = []
    for name, layer in layers.items():
        weight = layer.weight.cpu().numpy()
        row: Row = {"layer": name, "shape": list(weight.shape), "weights": weight.size}
        if goal and name in masks:
            row |= {**goal.row(name), "sparsity": 1 - float(masks[name].mean())}
        if name in widths:
            row["channels"] = list(widths[name])
        if name in bits:
            row["bits"] = bits[name]
        rows.append(row)
    return rows
