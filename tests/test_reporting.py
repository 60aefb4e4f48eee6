"""Tables and progress: what a person is shown is what the report holds."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from compressor import artifact
from compressor.reporting import console as consoles
from compressor.reporting.console import ConsoleProgress
from compressor.reporting.inspection import contents, contents_table
from compressor.reporting.tables import layer_table, percent, show, stage_table


def stage(size: int, accuracy: float | None, **more: Any) -> dict[str, Any]:
    return {
        "bytes": size,
        "sparsity": 0.9,
        "bits_per_weight": 8 * size / 1000,
        "accuracy": accuracy,
        "nonzero": 100,
        "nonzero_macs": 200,
        "macs": 2000,
        **more,
    }


def report(layers: int = 2, accuracy: float | None = 0.9876) -> dict[str, Any]:
    rows = [
        {"layer": f"conv{n}", "shape": [4, 1, 3, 3], "nonzero": 9, "sparsity": 0.75, "ratio": 4.5}
        for n in range(layers)
    ]
    pruned = [{**row, "threshold": 0.125, "ratio": 2.5} for row in rows]
    return {
        "network": {"name": "net", "arch": "lenet5", "fp32_bytes": 4000},
        "data": {"name": "digits", "test_images": 360} if accuracy is not None else None,
        "stages": {
            "dense": stage(4100, accuracy),
            "prune": stage(1000, accuracy, layers=pruned),
            "encode": stage(100, accuracy, layers=rows, weights_only_bytes=80),
            "export": {
                "bytes": 4100,
                "gzip_bytes": 500,
                "compared_on": "64 digits test inputs",
                "difference_absolute": 1e-6,
                "difference_relative": 1e-7,
            },
        },
        "files": {"artifact": "net.dcz", "onnx": "net.onnx"},
        "latency": {
            "runtime": "ONNX Runtime, CPU",
            "batch": 1,
            "threads": 1,
            "calls": 30,
            "ms": {
                "dense": {"median": 2.0, "p5": 1.0, "p95": 3.0, "minimum": 0.5},
                "compressed": {"median": 1.6, "p5": 1.0, "p95": 3.0, "minimum": 0.5},
            },
        },
        "not_measured": [] if accuracy is not None else ["accuracy: no data set was given"],
    }


def printed(value: Any, **settings: Any) -> str:
    stream = io.StringIO()
    out = Console(file=stream, width=120, highlight=False)
    if isinstance(value, dict):
        show(value, "net-compressed", out, **settings)
    else:
        out.print(value)
    return stream.getvalue()


def test_ratios_are_against_four_bytes_a_parameter() -> None:
    lines = printed(stage_table(report())).splitlines()
    (encoded,) = [line for line in lines if line.startswith("encoded")]

    assert encoded.split()[1:3] == ["100", "40.0x"]
    assert "98.76 %" in encoded
    assert not any(line.startswith("shared") for line in lines)  # that stage did not run


def test_layers_show_what_each_stage_made_of_them() -> None:
    table = printed(layer_table(report()))

    assert "0.1250" in table
    assert "4x1x3x3" in table
    assert "2.5x" in table
    assert "4.5x" in table


def test_many_layers_are_listed_on_request_only() -> None:
    assert "conv29" not in printed(report(layers=30))
    assert "-v lists all 30 layers" in printed(report(layers=30))
    assert "conv29" in printed(report(layers=30), verbose=True)


def test_accuracy_without_data_is_said_to_be_not_measured() -> None:
    shown = printed(report(accuracy=None))

    assert "not measured: accuracy" in shown
    assert shown.count("not measured") == 4  # three stages and the note
    assert percent(None) == "not measured"


def test_both_files_and_the_measured_speed_are_shown() -> None:
    shown = printed(report())

    assert "net.dcz" in shown
    assert "net.onnx" in shown
    assert "1.25x" in shown  # 2.0 ms over 1.6 ms
    assert "2,000 MACs" in shown


def test_contents_add_up_to_the_file() -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 5, (20, 30)).astype(np.uint8)
    codebook = np.array([-1, -0.5, 0.5, 1], np.float32)
    blob = artifact.encode(
        {"w": artifact.Shared(indices, codebook), "b": rng.standard_normal(20).astype(np.float32)},
        graph=b"graph" * 20,
    )
    found = contents(artifact.decode(blob))

    payloads = sum(row["bytes"] for row in found["tensors"])
    assert payloads + found["overhead_bytes"] + found["graph_bytes"] == pytest.approx(
        len(blob), abs=16
    )
    assert found["bytes"] == len(blob)
    assert found["weights_only_bytes"] == len(blob) - found["graph_bytes"]
    for row in found["tensors"]:
        assert sum(row["parts"].values()) == row["bytes"]
    assert found["tensors"][0]["nonzero"] == np.count_nonzero(indices)
    assert f"{len(blob):,}" in printed(contents_table(found))


def test_in_a_log_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(consoles.time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = ConsoleProgress(Console(file=stream, width=120))
    with progress.task("retrain", 100) as step:
        for _ in range(120):
            now += 0.75
            step("epoch 1/1")

    lines = stream.getvalue().splitlines()
    expected = ["retrain: 40 %, 45 s left  epoch 1/1", "retrain: 80 %, 15 s left  epoch 1/1"]
    assert lines == [*expected, "retrain: longer than planned  epoch 1/1"]
