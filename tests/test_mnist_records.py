"""The experiment of the smallest LeNets: its settings are settings, its verdict is a mean."""

import pytest

from compressor.benchmarks.experiments.mnist import ASKED, WITHOUT, judged
from compressor.recipe import Recipe


@pytest.mark.parametrize("ingredient", WITHOUT)
@pytest.mark.parametrize("network", ASKED)
def test_leaving_an_ingredient_out_changes_the_recipe(network: str, ingredient: str) -> None:
    recipe = Recipe.read(f"{network}-mnist-small")
    changes: dict[str, object] = dict(each.split("=") for each in WITHOUT[ingredient])  # type: ignore[misc]
    assert recipe.with_settings(changes).digest() != recipe.digest()


@pytest.mark.parametrize(
    ("ratio", "errors", "met"),
    [(201, (1.5, 1.6), True), (201, (1.6, 1.6), False), (199, (1.5, 1.5), False)],
)
def test_both_marks_must_be_met(ratio: float, errors: tuple[float, ...], met: bool) -> None:
    rows = [
        {"bytes": 5000 + at, "ratio": ratio, "error_percent": {"encode": error}}
        for at, error in enumerate(errors)
    ]
    found = judged("lenet-300-100", {"seeds": rows, "without": {}})
    assert found["met"] is met
    assert found["mean"]["error_percent"] == pytest.approx(sum(errors) / len(errors))
    assert found["mean"]["bytes"] == pytest.approx(5000.5)
