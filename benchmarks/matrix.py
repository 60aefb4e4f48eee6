"""Every form of input against every form of output: which work, with figures of each cell.

    python -m compressor.benchmarks.matrix [--networks NAME...]

Each network is saved in each form, compressed by the command line in a process of its own, and what
comes out is loaded and run in its own runtime; outputs are compared with the network that the
artifact decodes to. The table goes between the marks in `docs/inputs.md`, failures with their line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.benchmarks.environment import environment
from compressor.benchmarks.forms import FORMS

ROOT = Path(__file__).parents[1]
PAGE, RESULT = ROOT / "docs" / "inputs.md", ROOT / "benchmarks" / "results" / "matrix.json"
MARKS = ("<!-- matrix: begins -->", "<!-- matrix: ends -->")
SHAPES = {"vit_b_16": (3, 224, 224), "recurrent": (9, 6), "unet": (3, 32, 32)}
TOLERANCE = {"int8": 0.5}
"""Of the largest output; INT8 is another network, which must only be near."""
NETWORKS = (
    *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "vgg11", "efficientnet_b0"),
    *("vit_b_16", "unet", "recurrent"),
)

Row = dict[str, Any]


class UNet(nn.Module):
    """Two steps down, two up, with shortcuts; a class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(64, 32, 2, 2)
        self.join = nn.Conv2d(64, 32, 3, padding=1)
        self.head = nn.Conv2d(48, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        second = self.second(nn.functional.max_pool2d(first, 2))
        up = self.up(self.deep(nn.functional.max_pool2d(second, 2)))
        joined = nn.functional.relu(self.join(torch.cat([second, up], 1)))
        wide = nn.functional.interpolate(joined, scale_factor=2.0, mode="nearest")
        out: torch.Tensor = self.head(torch.cat([first, wide], 1))
        return out


class Recurrent(nn.Module):
    """Two directions of LSTM, a GRU, and a head on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(6, 32, batch_first=True, bidirectional=True)
        self.one = nn.GRU(64, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.one(self.both(x)[0])[0][:, -1])
        return out


def network(name: str) -> tuple[nn.Module, tuple[int, ...], str]:
    """(module, shape of one input, what --arch says) with seeded random weights."""
    from torchvision import models

    torch.manual_seed(0)
    own = {"unet": UNet, "recurrent": Recurrent}
    module = own[name]() if name in own else models.get_model(name, weights=None)
    for value in module.parameters():
        if not value.any():  # a head of zeros would compare nothing
            nn.init.normal_(value, std=0.02)
    arch = f"compressor.benchmarks.matrix:{own[name].__name__}" if name in own else ""
    return module.eval(), SHAPES.get(name, (3, 64, 64)), arch or f"torchvision:{name}"


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.matrix")
    described.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    described.add_argument("--forms", nargs="*", choices=list(FORMS), default=list(FORMS))
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    described.add_argument("--page", type=Path, default=PAGE)
    arguments = described.parse_args(words)
    known: Row = {}
    if arguments.output.exists():
        known = json.loads(arguments.output.read_text())["cells"]
    for name in arguments.networks:
        for form in arguments.forms:
            with tempfile.TemporaryDirectory() as folder:
                known.setdefault(name, {})[form] = cells(name, form, Path(folder))
            print(name, form, json.dumps(known[name][form]), flush=True)
    result = {"benchmark": "matrix", "environment": environment(), "cells": known}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write(arguments.page, table(known))


def cells(name: str, form: str, folder: Path) -> Row:
    """One row: what became of each output; a text where something failed."""
    module, shape, arch = network(name)
    suffix, save = FORMS[form]
    source = folder / f"net.{suffix}"
    try:
        quietly(lambda: save(module, torch.randn(1, *shape), source))
    except Exception as error:
        return {"saved": f"the exporter fails: {str(error).strip().splitlines()[0][:200]}"}
    given = ["--arch", arch] if form in ("state_dict", "safetensors") else []
    given += ["--trust-pickle"] if form == "pickled module" else []
    if not suffix.startswith("onnx") and form != "pt2":
        given += ["--input-shape", ",".join(map(str, (1, *shape)))]
    extra = calibration(module, shape, folder)
    settings = ["--sparsity", "0.5", "--quantize", "5bit", "--threads", "1", "-q", *extra]
    settings += ["--finetune-epochs", "0"] if extra else []
    done = compress("run", str(source), *given, *settings, "-o", str(folder / "out"))
    if done.returncode:
        return {"run": done.stderr.strip().splitlines()[-1][:300]}
    return {key: tried(check) for key, check in outputs(folder, shape, arch, form).items()}


def calibration(module: nn.Module, shape: tuple[int, ...], folder: Path) -> list[str]:
    """Images to calibrate INT8 with, for networks that classify images."""
    with torch.no_grad():
        output = module(torch.zeros(1, *shape))
    if len(shape) != 3 or output.ndim != 2:
        return []
    draw = np.random.default_rng(0)
    x = draw.standard_normal((10, *shape)).astype(np.float32)
    y = np.arange(10) % min(10, output.shape[1])
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return ["--data", str(folder / "data.npz"), "--epochs", "0", "--int8", "--ort"]


def outputs(
    folder: Path, shape: tuple[int, ...], arch: str, form: str
) -> dict[str, Callable[[], float]]:
    """What each output gives beside the ONNX file that the run has verified against torch."""
    out = folder / "out"
    x = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    expected = session(out / "net.onnx", x)

    def decompressed(suffix: str) -> float:
        target = folder / f"back.{suffix}"
        done = compress("decompress", str(out / "net.dcz"), "-o", str(target))
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        if suffix == "onnx":
            return 0.0 if target.read_bytes() == (out / "net.onnx").read_bytes() else 1.0
        return 0.0

    def module() -> float:
        from compressor import api

        named = None if form.startswith(("ONNX", "pt2", "TorchScript")) else arch
        loaded = api.load(out / "net.dcz", arch=named, input_shape=shape)
        with torch.no_grad():
            return gap(expected, loaded(torch.from_numpy(x)).numpy())

    found: dict[str, Callable[[], float]] = {
        ".dcz -> .onnx": lambda: decompressed("onnx"),
        ".dcz -> .pt": lambda: decompressed("pt"),
        ".dcz -> .safetensors": lambda: decompressed("safetensors"),
        "compressor.load": module,
    }
    for key, ending in (("INT8", "int8.onnx"), (".ort", "ort")):
        if (out / f"net.{ending}").exists():
            found[key] = lambda ending=ending: gap(expected, session(out / f"net.{ending}", x))  # type: ignore[misc]
    return found


def tried(check: Callable[[], float]) -> float | str:
    try:
        return check()
    except Exception as error:  # whatever a cell meets goes into the table
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"


def gap(expected: Any, found: Any) -> float:
    return float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-12))


def session(path: Path, x: Any) -> Any:
    import onnxruntime

    runtime = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return runtime.run(None, {runtime.get_inputs()[0].name: x})[0]


def compress(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "compressor", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )


def quietly(work: Callable[[], None]) -> None:
    from compressor.tracing import quiet

    with quiet():
        work()


def table(known: Row) -> str:
    """Rows are networks in a form, columns outputs: the largest difference, relative, or a note."""
    columns = (
        ".dcz -> .onnx",
        ".dcz -> .pt",
        ".dcz -> .safetensors",
        "compressor.load",
        "INT8",
        ".ort",
    )
    head = ["network", "input", *(f"`{column}`" for column in columns)]
    rows, notes = [], []
    for name, forms in known.items():
        for form, row in forms.items():
            told = next((row[key] for key in ("saved", "run") if key in row), None)
            if told is not None:
                notes.append(f"{name}, {form}: {told}")
                rows.append([name, form, *[f"no [{len(notes)}]"] * len(columns)])
                continue
            shown = []
            for column in columns:
                value = row.get(column)
                limit = TOLERANCE.get(column.lower(), 1e-4)
                if isinstance(value, str) or (value is not None and not value <= limit):
                    notes.append(f"{name}, {form}, {column}: {value}")
                    shown.append(f"no [{len(notes)}]")
                else:
                    shown.append("-" if value is None else "same" if value == 0 else f"{value:.0e}")
            rows.append([name, form, *shown])
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return text + "".join(f"\n\n[{n}] {note}" for n, note in enumerate(notes, 1))


def write(page: Path, text: str) -> None:
    """Put the table between its marks."""
    content = page.read_text(encoding="utf-8")
    before, rest = content.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    whole = f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}"
    page.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    main()
