"""What several test modules share: the command line in this process, and what it works on."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.cli import main
from compressor.models import registry
from compressor.reporting import latency


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, so that sums have one order and tests do not wait for other work; one seed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """torch's exporter makes its table of operators once, and not for half a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):  # a torch that keeps it elsewhere
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            made = functools.cache(ONNXRegistry.from_torchlib)
            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(made))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_latency() -> Iterator[None]:
    """No more rounds of timing in a run than there must be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "MAX_ROUNDS", latency.MIN_ROUNDS)
        yield


@dataclass(frozen=True)
class Outcome:
    """What one command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Compress = Callable[..., Outcome]


def run_compress(*arguments: object) -> Outcome:
    """``compress ARGUMENTS`` in this process; any exception but the exit itself passes through."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main([str(item) for item in arguments])
    code = stop.value.code
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def compress() -> Compress:
    """The command line."""
    return run_compress


def timed(**medians: float) -> dict[str, Any]:
    """What ``latency`` gives, for tests that do not wait for it: these medians, in ms."""
    first = next(iter(medians.values()))
    ms = {
        name: {
            **dict.fromkeys(("median", "p5", "p95", "minimum"), median),
            "median_interval": [median, median],
            "faster_interval": [first / median, first / median],
        }
        for name, median in medians.items()
    }
    histogram = {"low": 0.5, "high": 2.0, "counts": {name: [1] for name in medians}}
    how = {"runtime": "ONNX Runtime, CPU", "batch": 1, "threads": 1, "calls": 1}
    return {**how, "ms": ms, "histogram": histogram}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``net.pt`` (LeNet-300-100) and ``data.npz`` (200 images, ten classes)."""
    folder = tmp_path_factory.mktemp("shelf")
    torch.manual_seed(0)
    torch.save(registry.get("lenet-300-100").build().state_dict(), folder / "net.pt")
    draw = np.random.default_rng(0)
    y = np.arange(200) % 10
    x = draw.integers(0, 100, (200, 28, 28)) + 15 * y[:, None, None]
    np.savez(folder / "data.npz", x=x.astype(np.uint8), y=y)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
