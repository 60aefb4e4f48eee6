"""Networks that are no classifiers: a task of the user's says what is trained and what measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from compressor import tasks
from compressor.errors import UsageError
from compressor.reporting import schema
from compressor.reporting.accuracy import change

Compress = Callable[..., Any]
SMALL = ("--threads", 1, "-q")

SEGMENTATION = '''
import torch
from torch import nn
from torch.nn import functional

class Net(nn.Module):
    """A little U-Net: down, up, and a shortcut."""
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Conv2d(16, 2, 1)
    def forward(self, x):
        first = functional.relu(self.down(x))
        deep = functional.relu(self.deep(functional.max_pool2d(first, 2)))
        return self.head(torch.cat([first, self.up(deep)], 1))
Net.input_shape = (1, 8, 8)

class Task:
    metric = "iou"
    percent = True
    def loss(self, output, target):
        return functional.cross_entropy(output, target)
    def score(self, output, target):
        found = output.argmax(1) == 1
        both = (found & (target == 1)).flatten(1).sum(1)
        either = (found | (target == 1)).flatten(1).sum(1)
        return both / either.clamp(min=1)

def make():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 8, 8, generator=draw)
    y = (x[:, 0] > 0.5).long()
    return (x[:40], y[:40]), (x[40:], y[40:])
'''

AUTOENCODER = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 12))

class Task:
    metric = "mse"
    higher_is_better = False
    def loss(self, output, target):
        return (output - target).square().mean()
    def score(self, output, target):
        return (output - target).square().mean(1)
    def example(self):
        return torch.zeros(1, 12)

def make():
    x = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    return (x[:40], x[:40]), (x[40:], x[40:])
"""


def run(compress: Compress, here: Path, text: str, net: str, *more: object) -> dict[str, Any]:
    """A whole run with retraining; its report."""
    (here / "mine.py").write_text(text)
    scope: dict[str, Any] = {}
    exec(text, scope)
    torch.manual_seed(0)
    torch.save(scope[net]().state_dict(), here / "net.pt")
    command = ("net.pt", "--arch", f"mine.py:{net}", "--task", "mine.py:Task")
    done = compress(*command, "--data", "mine.py:make", "--sparsity", 0.5, *more, *SMALL)
    # 3: this machine was too busy for fewer channels to be faster.
    assert done.code == 0 or (done.code == 3 and "faster" in done.err), done.err
    report: dict[str, Any] = json.loads((here / "net-compressed" / "report.json").read_text())
    Draft202012Validator(json.loads(schema.text())).validate(report)
    return report


def test_a_segmentation_network_is_retrained_and_measured_by_its_iou(
    compress: Compress, here: Path
) -> None:
    cut = ("--channels", 0.25, "--round", 1, "--criterion", "taylor")
    more = (*cut, "--epochs", 2, "--emit", "int8")
    report = run(compress, here, SEGMENTATION, "Net", *more)
    assert report["task"] == {"metric": "iou", "higher_is_better": True, "percent": True}
    assert report["stages"]["channels"]["macs"] < report["stages"]["dense"]["macs"]
    # The figure is the mean of the scores of what the artifact decodes to.
    import onnxruntime

    scope: dict[str, Any] = {}
    exec(SEGMENTATION, scope)
    (x, _), (test, y) = scope["make"]()
    mean, std = (float(f"{value:.6g}") for value in (x.mean(), x.double().std(correction=0)))
    kept = int(0.9 * len(x))
    assert kept < len(x)
    session = onnxruntime.InferenceSession(str(here / "net-compressed" / "net.onnx"))
    found = report["stages"]["encode"]["accuracy"]
    assert 0 <= found <= 1
    output = torch.from_numpy(session.run(None, {"input": ((test - mean) / std).numpy()})[0])
    # Mean and std are the training part's own, so this one is close, not the same.
    assert float(scope["Task"]().score(output, y).mean()) == pytest.approx(found, abs=0.05)
    page = (here / "net-compressed" / "report.html").read_text()
    assert "test iou" in page
    assert "test accuracy" not in page


def test_an_autoencoder_is_judged_by_an_error_that_falls(compress: Compress, here: Path) -> None:
    report = run(
        compress, here, AUTOENCODER, "build", "--epochs", 5, "--distill", "--quantize", "4bit"
    )
    losses = [row["loss"] for row in report["stages"]["prune"]["history"]]
    assert losses[-1] < losses[0]
    stage = report["stages"]["encode"]
    scope: dict[str, Any] = {}
    exec(AUTOENCODER, scope)
    from compressor import api

    module = api.load(here / "net-compressed" / "net.dcz", arch=f"{here}/mine.py:build")
    _, (x, y) = scope["make"]()
    with torch.no_grad():
        expected = float((module(x) - y).square().mean())
    assert stage["accuracy"] == pytest.approx(expected, rel=1e-5)
    gained = stage["change"]
    assert gained["difference"] == pytest.approx(expected - report["stages"]["dense"]["accuracy"])
    assert gained["lost"] + gained["won"] <= gained["images"] == 20


def test_the_change_of_scores_is_the_mean_difference_with_a_normal_interval() -> None:
    before, after = np.float32([1, 2, 3, 4]), np.float32([0, 2, 4, 8])
    found = change(before, after, better=-1)
    gap = np.array([-1.0, 0, 1, 4])
    assert (found["lost"], found["won"], found["images"]) == (2, 1, 4)
    assert found["difference"] == gap.mean()
    half = 1.96 * gap.std(ddof=1) / 2
    np.testing.assert_allclose(found["interval"], [gap.mean() - half, gap.mean() + half])


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "Task", "defines no function or class 'Task'"),
        ("class Task:\n    pass\n", "Task", r"has no loss\(output, target\)"),
        ("def task():\n    return 1 / 0\n", "task", "raised ZeroDivisionError"),
        (
            "class Task:\n    percent = 3\n    def loss(s, o, t): ...\n    score = loss\n",
            "Task",
            "are truths",
        ),
    ],
)
def test_tasks_that_cannot_be(here: Path, text: str, name: str, says: str) -> None:
    (here / "mine.py").write_text(text)
    with pytest.raises(UsageError, match=says):
        tasks.load(f"mine.py:{name}")


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("return (output - target).square().mean(1)", "return 3", 2, "score gives a int, not a"),
        ("return (output - target).square().mean()\n", "return output\n", 2, "not one number"),
        ("square().mean()\n", "squared()\n", 2, "raised AttributeError"),
        ("torch.zeros(1, 12)", "'text'", 2, "example gives a str, not a tensor"),
        ("torch.zeros(1, 12)", "torch.zeros(1, 3)", 1, "does not run on an input of shape (1, 3)"),
        ("(x[40:], x[40:])", "(x[40:], x[:3])", 1, "do not go with targets of shape (3, 12)"),
    ],
)
def test_tasks_that_give_nonsense_are_told_so_before_the_run(
    compress: Compress, here: Path, old: str, new: str, code: int, says: str
) -> None:
    assert old in AUTOENCODER
    (here / "mine.py").write_text(AUTOENCODER.replace(old, new))
    scope: dict[str, Any] = {}
    exec(AUTOENCODER, scope)
    torch.save(scope["build"]().state_dict(), here / "net.pt")
    given = ("--arch", "mine.py:build", "--task", "mine.py:Task", "--data", "mine.py:make")
    done = compress("net.pt", *given, "--sparsity", 0.5, *SMALL)
    assert (done.code, done.out) == (code, "")
    assert says in done.err.splitlines()[-1]
    assert not (here / "net-compressed").exists()


def test_what_counts_right_answers_needs_a_classification(compress: Compress, here: Path) -> None:
    (here / "mine.py").write_text(AUTOENCODER)
    scope: dict[str, Any] = {}
    exec(AUTOENCODER, scope)
    torch.save(scope["build"]().state_dict(), here / "net.pt")
    given = ("--arch", "mine.py:build", "--task", "mine.py:Task", "--data", "mine.py:make", *SMALL)
    for more, says in (
        (("--quantize", "auto", "--max-drop", 1), "max-drop"),
        (("--target-size", "25%"), "better higher, and mse is not"),
    ):
        done = compress("net.pt", *given, *more)
        assert done.code == 2, done.err
        assert says in done.err
    done = compress("scan", "net.pt", *given)
    assert (done.code, "leave --task out" in done.err) == (2, True)


def test_targets_of_a_task_without_labels_rank_layers_by_their_weights(
    compress: Compress, here: Path
) -> None:
    # A share of the variance explained: better higher, and no answer is right or wrong.
    error = "(output - target).square().mean(1)"
    text = AUTOENCODER.replace(f"return {error}\n    def ex", f"return 1 - {error}\n    def ex")
    text = text.replace("higher_is_better = False", "higher_is_better = True")
    assert text.count("1 - ") == text.count("= True") == 1
    (here / "mine.py").write_text(text)
    scope: dict[str, Any] = {}
    exec(text, scope)
    torch.manual_seed(0)
    torch.save(scope["build"]().state_dict(), here / "net.pt")
    command = ("net.pt", "--arch", "mine.py:build", "--task", "mine.py:Task")
    sizes = ("--target-ratio", 2.5, "--weights-only", "--epochs", 2)
    done = compress(*command, "--data", "mine.py:make", *sizes, *SMALL)

    assert done.code == 0, done.err
    targets = json.loads((here / "net-compressed" / "report.json").read_text())["targets"]
    assert targets["ranked_by"] == "squared error of the weights"
    assert (here / "net-compressed" / "net.dcz").stat().st_size <= targets["most_bytes"]
    assert targets["drop"] is not None
