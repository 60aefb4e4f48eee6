"""Settings per layer that a scan proposes, chosen by its curves and then run all together."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from compressor.channels import remove_channels
from compressor.errors import StageError
from compressor.layers import bake
from compressor.network import Context, Network, Row
from compressor.per_layer import KINDS
from compressor.pruning import prune
from compressor.quantization import share
from compressor.recipe import Recipe
from compressor.scan.allocation import HIGHEST, LOWEST, LayerModel, Setting, allocate
from compressor.scan.curves import Answers
from compressor.settings import Channels, Prune, Share, Training

Evaluate = Callable[[Network], Answers]
UNTRAINED = Training(epochs=0)
TRIES = 9
"""Proposals that are run at most: a factor of two each to bracket the budget, then halving."""


@dataclass(frozen=True)
class Proposal:
    """A recipe's settings, what they predict, and what they gave all together."""

    recipe: Recipe
    answers: Answers
    tried: list[Row]


def with_settings(recipe: Recipe, chosen: Mapping[str, Setting]) -> Recipe:
    """``recipe`` with these layers' settings; how it retrains stays as it was."""
    sparsity = {_only(name): s.sparsity for name, s in chosen.items() if s.sparsity > 0}
    pruned = None
    if sparsity:
        pruned = replace(
            recipe.prune or Prune(), sensitivity=None, sparsity=sparsity, scope="layer"
        )
    bits = {_only(name): s.bits for name, s in chosen.items() if s.bits is not None}
    shared = replace(recipe.share or Share(), bits=bits, centroids=0) if bits else None
    return replace(recipe, prune=pruned, share=shared)


def _only(name: str) -> str:
    """A rule for the layer of this name alone, also where a kind of layers is called so."""
    return f"[{name[0]}]{name[1:]}" if name in KINDS else name


def untrained(recipe: Recipe) -> Recipe:
    """The same stages without any training, so all pruning at once."""
    changes: dict[str, object] = {f"{name}.epochs": 0 for name in recipe.trainings}
    if recipe.prune is not None:
        changes |= {"prune.schedule": "rounds", "prune.rounds": 1}
    return recipe.with_settings(changes)


def applied(network: Network, recipe: Recipe, context: Context) -> Network:
    """A copy of ``network`` after the recipe's stages: channels, prune, share."""
    small = replace(network, module=copy.deepcopy(network.module))
    if recipe.channels is not None:
        remove_channels(small, recipe.channels, context)
        bake(small.module)
    if recipe.prune is not None:
        prune(small, recipe.prune, context)
    if recipe.share is not None:
        share(small, recipe.share, context)
    return small


def propose(
    network: Network,
    models: Mapping[str, LayerModel],
    max_drop: float,
    evaluate: Evaluate,
    context: Context,
) -> Proposal | None:
    """The smallest network by the model that loses at most ``max_drop`` percent of the images.

    The model says how settings rank, and the price at which they are taken is corrected by runs
    of all settings together: it begins where the model's increases of the loss come to the budget
    (a nat is taken for an image), is doubled or halved until the budget lies between two prices,
    and halved in between. None where nothing within the budget was found.
    """

    def recipe_of(chosen: Mapping[str, Setting]) -> Recipe | None:
        recipe = with_settings(Recipe(), chosen)
        return None if recipe.prune is None and recipe.share is None else recipe

    return _search(network, models, recipe_of, max_drop / 100, evaluate, context)


def propose_channels(
    network: Network,
    models: Mapping[str, LayerModel],
    layers: Mapping[str, tuple[str, ...]],
    max_drop: float,
    evaluate: Evaluate,
    context: Context,
) -> Proposal | None:
    """The same for channels, by the multiply-adds that they cost; units are made of ``layers``.

    A layer in several units gets the least of their ratios. Nothing is retrained, but weights are
    fitted and batch norms re-estimated as every removal of channels does.
    """

    def recipe_of(chosen: Mapping[str, Setting]) -> Recipe | None:
        ratios: dict[str, float] = {}
        for unit, setting in chosen.items():
            for layer in layers[unit]:
                ratios[layer] = min(ratios.get(layer, 1.0), setting.sparsity)
        ratios = {layer: ratio for layer, ratio in ratios.items() if 0 < ratio < 1}
        return Recipe(channels=Channels(ratio=ratios, round=1, keep=1)) if ratios else None

    return _search(network, models, recipe_of, max_drop / 100, evaluate, context)


def _search(
    network: Network,
    models: Mapping[str, LayerModel],
    recipe_of: Callable[[Mapping[str, Setting]], Recipe | None],
    budget: float,
    evaluate: Evaluate,
    context: Context,
) -> Proposal | None:
    """The highest price within the budget of lost images, in the logarithm of the price."""

    def attempt(price: float) -> tuple[Recipe, Answers] | None:
        chosen, _ = allocate(models, price)
        recipe = recipe_of(chosen)
        if recipe is None:
            return None
        try:
            small = applied(network, untrained(recipe), context)
        except StageError as error:
            context.progress.note(f"not possible: {error}")
            return None
        return recipe, evaluate(small)

    price = _first_price(models, budget)
    tried: list[Row] = []
    best: Proposal | None = None
    low, high = None, None
    while len(tried) < TRIES and LOWEST < price < HIGHEST:
        found = attempt(price)
        if found is None and low is None and high is None:
            low = price  # nothing is changed yet
        elif found is None:
            break
        else:
            recipe, answers = found
            within = answers.lost <= budget
            tried.append({"price": price, **answers.row(), "kept": within})
            context.progress.note(f"all together: {100 * answers.lost:.2f} % of the images lost")
            if within:
                low, best = price, Proposal(recipe, answers, tried)
            else:
                high = price
        if low is not None and high is not None:
            if math.log2(high / low) < 0.25:
                break
            price = math.sqrt(low * high)
        else:
            price = 3 * price if high is None else price / 3
    return best


def _first_price(models: Mapping[str, LayerModel], budget: float) -> float:
    low, high = LOWEST, HIGHEST
    for _ in range(50):
        middle = math.sqrt(low * high)
        rise = sum(model.best(middle)[1] for model in models.values())
        low, high = (middle, high) if rise <= budget else (low, middle)
    return low
