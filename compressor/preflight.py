"""What can be known to be wrong before a run touches its folder."""

from typing import Any

from compressor.determinism import find_device
from compressor.network import Network
from compressor.recipe import Recipe
from compressor.reporting.plan import plan
from compressor.training.data import Data
from compressor.training.fit import check_fit


def check(network: Network, recipe: Recipe, data: Data | None) -> list[dict[str, Any]]:
    """What the recipe will do to each layer, before retraining: the rows of :func:`plan`.

    Raises :class:`CompressorError` for a device that is not there, data with more classes than
    the network has outputs, a rule that fits no layer, or a layer that would vanish.
    """
    find_device(recipe.device)
    if data is not None:
        check_fit(network.module, network.example, data)
    return plan(network, recipe)
