"""A run's report as data: ``report.json``, which ``report.schema.json`` describes."""

from typing import Any

from compressor import __version__
from compressor.examples import inputs_of
from compressor.export import optional
from compressor.network import Network
from compressor.recipe import Recipe, to_table
from compressor.reporting.environment import environment
from compressor.reporting.latency import missed
from compressor.reporting.rows import describe
from compressor.reporting.schema import SCHEMA
from compressor.tasks import CLASSIFICATION
from compressor.training.data import Data

Json = dict[str, Any]

NEVER_MEASURED = (
    "latency on a GPU, in other runtimes, on other machines, at other batch sizes or threads",
    "peak memory, load time, energy",
)
"""What no run measures, and a reader may look for."""


def record(
    network: Network,
    recipe: Recipe,
    data: Data | None,
    *,
    fp32_bytes: int,
    stages: Json,
    files: dict[str, str],
    times: Json,
) -> Json:
    """The report of a finished run; ``times`` are from ``latency``, ``files`` name the outputs."""
    accuracy = [] if data else ["accuracy: no data set was given (--data)"]
    return {
        "schema": SCHEMA,
        "tool": f"compressor {__version__}",
        "network": {
            "name": network.name,
            "arch": network.arch,
            "input_shape": list(inputs_of(network.example)[0].shape),
            "fp32_bytes": fp32_bytes,
        },
        "data": describe(data),
        "task": (CLASSIFICATION if data is None else data.task).row(),
        "stages": stages,
        "files": files,
        "latency": times,
        "missed": [*missed(times, recipe.channels), *optional.missed(stages["export"])],
        "recipe": to_table(recipe),
        "environment": environment(),
        "not_measured": [*accuracy, *NEVER_MEASURED],
    }
