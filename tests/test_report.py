"""The report for people: it says what the data say, whole, safe, and to those who see nothing."""

import copy
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from compressor.reporting import (
    axes,
    histograms,
    intervals,
    markdown,
    page,
    resampling,
    schema,
    svg,
)
from tests.conftest import Compress

HOSTILE = "<script>alert(1)</script>&\"'|`\x00\ud800"


class Page(HTMLParser):
    """Tags that are open, and what was seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs), tuple(self.open)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.seen if name == tag]


@pytest.fixture(scope="module")
def run(compress: Compress, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    short = ("--epochs", 2, "--finetune-epochs", 1, "--threads", 1)
    both = ("--prune-sensitivity", "0.5", "--quantize", "fc=4bit", "--data", shelf / "data.npz")
    done = compress(shelf / "net.pt", *both, *short, "-o", folder)
    assert done.code == 0, done.err
    assert "report.html" in done.out
    return folder


@pytest.fixture(scope="module")
def blind(compress: Compress, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without data."""
    folder = tmp_path_factory.mktemp("blind") / "out"
    done = compress(shelf / "net.pt", "--quantize", "2bit", "--threads", 1, "-q", "-o", folder)
    assert done.code == 0, done.err
    return folder


def loaded(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "report.json").read_text())
    assert isinstance(found, dict)
    return found


def check_page(text: str) -> Page:
    parsed = Page(text)
    assert parsed.open == []
    assert not parsed.all("script")
    assert not parsed.all("link")
    for _, attributes, _ in parsed.seen:
        assert not {"src", "href", "srcset", "onload", "onclick"} & set(attributes)
    assert "url(" not in text
    assert "@import" not in text
    names = [a["id"] for _, a, _ in parsed.seen if "id" in a]
    assert len(names) == len(set(names))
    for chart in parsed.all("svg"):
        if chart.get("aria-hidden") != "true":
            assert chart["role"] == "img"
            assert set((chart["aria-labelledby"] or "").split()) <= set(names)
    assert all(attributes["scope"] in ("col", "row") for attributes in parsed.all("th"))
    tables = len(parsed.all("table"))
    assert tables == len(parsed.all("caption")) == len(parsed.all("thead")) > 0
    return parsed


@pytest.mark.parametrize("name", ["run", "blind"])
def test_reports_are_of_the_published_schema(name: str, request: pytest.FixtureRequest) -> None:
    published = json.loads(schema.text())
    jsonschema.Draft202012Validator.check_schema(published)
    report = loaded(request.getfixturevalue(name))
    jsonschema.validate(report, published)
    assert published["properties"]["schema"]["const"] == schema.SCHEMA == report["schema"]
    del report["stages"]["encode"]["breakdown"]
    with pytest.raises(jsonschema.ValidationError, match="breakdown"):
        jsonschema.validate(report, published)


@pytest.mark.parametrize("name", ["run", "blind"])
def test_the_page_is_whole_and_stands_alone(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    text = (folder / "report.html").read_text()
    check_page(text)
    assert len(text) < 1_000_000
    assert f"{loaded(folder)['stages']['encode']['bytes']:,}" in text
    assert ("not measured" in text) == (name == "blind")


def test_figures_of_the_report_add_up(run: Path) -> None:
    report = loaded(run)
    dense, encode = report["stages"]["dense"], report["stages"]["encode"]
    assert sum(encode["breakdown"].values()) == encode["bytes"]
    for row in encode["layers"]:
        assert sum(row["parts"].values()) == row["bytes"]
        found = encode["distributions"]["weights"][row["layer"]]
        assert sum(found["counts"]) == row["nonzero"]
        assert found["zeros"] == row["weights"] - row["nonzero"]
        assert len(found["centroids"]) <= 16
    change = encode["change"]
    assert change["difference"] == pytest.approx(encode["accuracy"] - dense["accuracy"])
    for name, counts in report["latency"]["histogram"]["counts"].items():
        assert sum(counts) == report["latency"]["calls"], name


def test_made_again_the_pages_have_the_same_bytes(
    run: Path, compress: Compress, tmp_path: Path
) -> None:
    done = compress("report", run, "-o", tmp_path)
    assert done.code == 0, done.err
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_what_was_tried_for_a_target_is_shown(run: Path) -> None:
    report = loaded(run)
    assert "Tried for the target" not in (run / "report.html").read_text()
    common: dict[str, Any] = {"sparsity": 0.5, "bits": 4.25, "layers": {"fc1": [0.5, 4]}}
    gone = {"bytes": None, "accuracy": None, "drop": None, "met": False}
    report["targets"] = {
        **{"size": 0.25, "max_drop": 1.5, "bytes": 12_345, "most_bytes": 23_456, "drop": 0.5},
        **{"validation_images": 20, "validation_dense": 1.0, "validation_accuracy": 0.995},
        "ranked_by": "loss on validation images",
        "tried": [
            {"trained": False, **common, **gone},
            {
                "trained": True,
                **common,
                "bytes": 12_345,
                "accuracy": 0.995,
                "drop": 0.5,
                "met": True,
            },
        ],
    }
    jsonschema.validate(report, json.loads(schema.text()))
    text = page.html(report).decode()
    parsed = check_page(text)
    assert "at most 23,456 bytes and at most 1.5 points lost" in text
    assert "What was tried for the target" in text
    shown = markdown.text(report).decode()
    assert_tables(shown)
    for each in ("12,345", "not possible", "retrained", "+0.50"):
        assert each in text
        assert each in shown
    for row in report["targets"]["tried"]:  # a size alone, without data: no accuracy, no plot
        row["drop"] = row["accuracy"] = None
    report["targets"].update(max_drop=None, drop=None, validation_dense=None)
    fewer = check_page(page.html(report).decode())
    assert len(fewer.all("svg")) == len(parsed.all("svg")) - 1


def test_hostile_names_are_text(run: Path) -> None:
    report = loaded(run)
    report["network"]["name"] = report["network"]["arch"] = HOSTILE
    report["files"]["artifact"] = report["environment"]["cpu"] = HOSTILE
    report["recipe"]["arch"] = "<script>alert(2)</script>"
    for row in report["stages"]["encode"]["layers"]:
        row["layer"] = HOSTILE + row["layer"]
    found = report["stages"]["encode"]["distributions"]
    found["weights"] = {HOSTILE + name: row for name, row in found["weights"].items()}
    text = page.html(report).decode()
    check_page(text)
    assert "\x00" not in text
    shown = markdown.text(report).decode()
    outside = shown.split("<details>")[0]
    assert "<script" not in outside
    assert_tables(shown)


def assert_tables(text: str) -> None:
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert blocks
    for rows in blocks:
        bars = {len(row.replace("\\|", "").split("|")) for row in rows}
        assert len(bars) == 1
        assert len(rows) >= 3


def test_markdown_tables_have_as_many_cells_in_every_row(run: Path) -> None:
    assert_tables((run / "report.md").read_text())


def test_a_page_of_very_many_layers_stays_small(run: Path) -> None:
    report = loaded(run)
    encode = report["stages"]["encode"]
    rows, weights = encode["layers"], encode["distributions"]["weights"]
    name, row = rows[0]["layer"], rows[0]
    many = {f"{name}.{n}": copy.deepcopy(weights[name]) for n in range(2000)}
    encode["layers"] = [{**row, "layer": each} for each in many]
    encode["distributions"]["weights"] = many
    report["stages"]["dense"]["distributions"]["weights"] = many
    text = page.html(report)
    assert len(text) < 1_000_000
    assert b"smaller layers are in report.json" in text


def test_runs_side_by_side(run: Path, blind: Path, compress: Compress, here: Path) -> None:
    done = compress("report", run, blind)
    assert done.code == 0, done.err
    text = (here / "comparison.html").read_text()
    parsed = check_page(text)
    assert len(parsed.all("svg")) == 2
    assert "Accuracy was not measured" in text
    assert_tables((here / "comparison.md").read_text())
    again = compress("report", run, blind)
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "--force" in again.err
    assert compress("report", run, blind, "--force").code == 0
    assert compress("report", blind, blind, "--force").code == 0  # no accuracy at all: no plot
    assert not Page((here / "comparison.html").read_text()).all("svg")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "not a report"),
        ('{"schema": 1, "stages": {}}', "schema 1, and this version reads 2"),
        ('{"schema": 2, "stages": {}}', "not a whole report"),
        ('{"schema": 2, "stages": 3, "network": NaN}', "damaged"),
    ],
)
def test_bad_reports_get_one_line(
    compress: Compress, here: Path, content: str | None, says: str
) -> None:
    if content is not None:
        (here / "report.json").write_text(content)
    for words in (("report.json",), ("report.json", "report.json")):
        done = compress("report", *words)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert says in done.err
    assert sorted(path.name for path in here.iterdir()) in ([], ["report.json"])


def test_without_a_run_it_is_said_what_to_give(compress: Compress) -> None:
    assert compress("report").code == 2
    assert json.loads(compress("report", "--schema").out)["title"].startswith("The report")


# ---- intervals, histograms, charts ---------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_wilson_solves_the_score_equation(share: float) -> None:
    """Its ends are the p with (share - p)^2 = z^2 p (1 - p) / n."""
    found = intervals.wilson(share, 50)
    assert found is not None
    for end in found:
        if 0 < end < 1:
            left, right = (share - end) ** 2, intervals.Z**2 * end * (1 - end) / 50
            assert math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-12)
    assert found[0] <= share <= found[1]
    assert intervals.wilson(share, 0) is None


def test_the_paired_interval_holds_the_change_in_95_of_100_draws() -> None:
    draw = np.random.default_rng(0)
    lost, won = 0.04, 0.02
    counts = draw.multinomial(500, [lost, won, 1 - lost - won], size=2000)
    inside = 0
    for row in counts:
        low, high = intervals.paired(int(row[0]), int(row[1]), 500)
        inside += low <= won - lost <= high
    assert 0.93 < inside / 2000 < 0.975


def test_a_model_against_itself_is_1_within_the_interval() -> None:
    """Copies that lie differently in memory differ for good; rounds share what the machine does."""
    draw, hits = np.random.default_rng(0), 0
    for _ in range(100):
        shared = draw.gamma(2, 0.05, 200)
        lie = draw.normal(1, 0.01, (2, 10)).repeat(20, axis=1)
        a, b = (lie * (1 + shared + draw.gamma(1, 0.02, (2, 200)))).reshape(2, 10, 20)
        found = resampling.quotient(list(a), list(b))
        assert found.value == pytest.approx(float(np.median(a) / np.median(b)), rel=1e-4)
        hits += found.holds_one
    assert hits >= 90


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(0).normal(0, 1, 1000).astype(np.float32)
    values[:100] = 0
    row = histograms.counted(values)
    edges = row["width"] * (row["first"] + np.arange(len(row["counts"]) + 1))
    expected = np.histogram(values[values != 0].astype(np.float64), edges)[0]
    assert row["counts"] == expected.tolist()
    assert row["zeros"] == 100
    assert sum(row["counts"]) == 900
    assert histograms.counted(np.zeros(5))["counts"] == [0]
    far = histograms.counted(np.array([1e9, -1e9]), 0.1)
    assert sum(far["counts"]) == 2
    assert len(far["counts"]) <= histograms.MOST_BINS


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (3, 7e6, True), (91.2, 91.3, True)]
)
def test_ticks_are_round_and_within(low: float, high: float, log: bool) -> None:
    ticks = axes.Scale(low, high, 0, 100, log).ticks()
    assert 2 <= len(ticks) <= 12
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


@pytest.mark.parametrize(
    ("x", "y", "dots", "anchor"),
    [
        (5, 5, [], None),  # free on its right
        (5, 5, [(6, 5)], "end"),  # a dot would lie under it
        (5, 5, [(6, 9)], None),  # that dot is far above
        (5, 5, [(4, 5)], None),
        (10, 5, [], "end"),  # the frame ends
    ],
)
def test_a_label_lies_on_no_other_dot(
    x: float, y: float, dots: list[tuple[float, float]], anchor: str | None
) -> None:
    chart = svg.Chart("t", "t", axes.Axis("x", 0, 10), axes.Axis("y", 0, 10), "n")
    chart.dots([(x, y), *dots], 1)
    chart.note(x, y, "9-12, 17")
    label = next(each for each in chart.done().iter() if each.text == "9-12, 17")
    assert label.get("class") == anchor
