"""The pure parts of the peers' comparison, and of what writes the README's tables."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from compressor.benchmarks import __main__ as bench
from compressor.benchmarks import readme
from compressor.benchmarks.channels.rivals import ratio
from compressor.benchmarks.experiments import RESULTS
from compressor.benchmarks.peers import __main__ as peers
from compressor.benchmarks.peers import table
from compressor.benchmarks.peers.tasks import Task

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("wanted", [0, 1, 37, 50, 99])
def test_the_least_ratio_that_leaves_so_few(wanted: int) -> None:
    def cut(part: float) -> tuple[float, int]:
        return part, int(100 * (1 - part) ** 2)

    expected = next(n / 128 for n in range(1, 128) if cut(n / 128)[1] <= wanted)
    assert ratio.least(cut, wanted) == cut(expected)


def test_no_ratio_leaves_nothing() -> None:
    with pytest.raises(RuntimeError, match="no ratio"):
        ratio.least(lambda part: (part, 1), 0)


def test_a_table_takes_the_place_of_the_last_one() -> None:
    text = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\n<!-- bench:y --><!-- /bench:y -->\nb\n"
    once = readme.filled(text, "x", "| \\1 | new |\n")
    assert once == text.replace("\nold\n", "\n\n| \\1 | new |\n\n")
    assert readme.filled(once, "x", "| \\1 | new |") == once
    with pytest.raises(ValueError, match="0 places"):
        readme.filled(text, "z", "")


@pytest.mark.parametrize("name", bench.TABLES)
def test_the_readme_shows_the_committed_results(name: str) -> None:
    assert f"<!-- bench:{name} -->" in README
    path = RESULTS / bench.FILES[name]
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        assert readme.filled(README, name, bench.WRITTEN[name](result)) == README


def test_bench_hands_on_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(peers, "main", lambda words: given.append(peers.parser().parse_args(words)))
    copied = tmp_path / "README.md"
    copied.write_text(README, encoding="utf-8")
    words = ["--anew", "peers", "--checkpoints", "c", "--readme", str(copied)]
    bench.main(words)
    (options,) = given
    assert (options.checkpoints, options.data_root) == (Path("c"), None)
    assert options.environments == Path("build/peers/environments")
    assert copied.read_text(encoding="utf-8") == README  # nothing was measured


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def row(tool: str, size: int, accuracy: float, ms: float, **more: Any) -> dict[str, Any]:
    known = {"method": f"{tool}'s", "tool": tool, "needs": "no data", "file": ".x", "bytes": size}
    measured = {"macs": 1000, "median_ms": interval(ms), "faster": interval(2 / ms)}
    return {**known, **measured, "onnx": tool, "accuracy": {"value": accuracy}, **more}


RESULT = {
    "environment": {"cpu": "CPU", "libraries": {"onnxruntime": "1.0"}},
    "networks": [
        {
            "network": "lenet5",
            "data": "digits",
            "test_images": 360,
            "training": {"images": 10, "optimizer": "sgd", "lr": 0.02},
            "warnings": ["noise"],
            "rows": [
                row("PyTorch", 4000, 0.99, 2.0, faster=None),
                row("NNCodec", 400, 0.98, 2.0),
                {"method": "channels", "failure": "it broke"},
                row("compress", 100, 0.97, 1.0),
            ],
        }
    ],
}


def test_a_row_says_what_was_measured() -> None:
    text = table.markdown(RESULT)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("|")]  # fmt: skip
    assert {len(cells) for cells in rows} == {len(table.HEADINGS)}
    assert rows[2][-1] == "2.000 ms"
    assert rows[4] == [
        *("3", "`compress's`", "compress", "no data", ".x", "100", "40.0x", "97.00", "", "1,000"),
        "2.00x [1.90, 2.10]",
    ]
    assert "channels failed: it broke." in text
    assert "Warning: noise." in text


def test_every_row_is_in_both_pictures() -> None:
    root = ET.fromstring(table.picture(RESULT))
    charts = list(root.iterfind("{http://www.w3.org/2000/svg}svg"))
    assert len(charts) == 2
    for chart in charts:
        assert len(list(chart.iter("{http://www.w3.org/2000/svg}circle"))) == 3
    assert len({each.get("id") for each in root.iter() if each.get("id")}) == 6


def test_a_task_survives_its_file() -> None:
    task = Task("lenet5", Path("a.pt"), "digits", None, 0.9, Path("e"))
    assert Task.from_json(task.to_json()) == task
