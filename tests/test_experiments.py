"""The page of experiments shows what their result files say."""

from pathlib import Path

import pytest

from compressor.benchmarks.experiments import __main__ as experiments
from compressor.benchmarks.experiments.weight_rules import CASES, picture
from compressor.cli import cli

PAGE = (Path(__file__).parent.parent / experiments.PAGE).read_text(encoding="utf-8")
RUN = {
    "bytes": 4238,
    "ratio": 251.6,
    "error_percent": {"encode": 1.4},
    "validation_error_percent": 1.83,
}


def test_the_page_shows_the_committed_results() -> None:
    assert experiments.filled(PAGE) == PAGE


def test_each_ingredient_has_a_row() -> None:
    worse = {**RUN, "bytes": 5000, "ratio": 213.3}
    found = {"lenet5": {"seeds": [RUN], "without": {"distillation": worse}}}
    table = experiments.mnist_records({"networks": found})
    assert table.splitlines()[2:] == [
        "| lenet5 | nothing | 4,238 | 252x | 1.40 % | 1.83 % |",
        "| lenet5 | distillation | 5,000 | 213x | 1.40 % | 1.83 % |",
    ]


def test_a_row_beside_torchs() -> None:
    row = {
        **{"scope": "global", "sparsity": 0.9, "epochs": 3, "rounds": 1},
        **{"accuracy": 0.8773, "drop_points": 3.94, "torch_accuracy": 0.8669},
        **{"masks_equal": True, "speedup": 1.0, "layers": {"a": 0.5, "b": 0.95}},
    }
    line = experiments.one_shot_iterative({"rows": [row]}).splitlines()[2]
    assert "| 87.73 % | 3.94 | 86.69 % | equal | 1.00x | 95.0 %, 50.0 % |" in line


@pytest.mark.parametrize("case", CASES)
def test_cases_are_asked_for_in_words_that_the_tool_knows(case: str) -> None:
    known = {word for option in cli.commands["run"].params for word in option.opts}
    assert {word for word in CASES[case] if word.startswith("--")} <= known


def test_a_line_for_each_rule_that_was_run_whole() -> None:
    run = {"sparsity": 0.9, "error_percent": {"dense": 8.0, "encode": 20.0}}
    whole = {f"erk {sparsity}": {**run, "sparsity": sparsity} for sparsity in (0.7, 0.8, 0.9)}
    drawn = picture({**whole, "lamp 0.7": run, "splicing, one epoch": run, "ratio 20": run})
    assert drawn.count("<polyline") == 1
    assert ">erk<" in drawn
    assert ">lamp<" not in drawn
    assert "<title>splicing, one epoch</title>" in drawn
    assert "ratio 20" not in drawn
