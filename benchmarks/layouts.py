"""Ten layouts in which people have their networks, each tried from an empty directory.

    python -m compressor.benchmarks.layouts [--only NAME...]

Makes each layout as its tool or repository would leave it, runs the commands a new user would give,
and writes `docs/layouts.md`: the commands and what was printed. A command whose exit code is not
the one expected ends with a failure, so the page is also a test.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.benchmarks import layout_files as files

PAGE = Path(__file__).resolve().parents[1] / "docs" / "layouts.md"
SETTINGS = "--sparsity 0.8 --quantize 4bit --threads 1"


@dataclass(frozen=True)
class Layout:
    """``make`` fills an empty folder; ``steps`` are (command, exit code)."""

    name: str
    title: str
    make: Callable[[Path], None]
    steps: tuple[tuple[str, int], ...]
    told: str


LAYOUTS = (
    Layout(
        "bare",
        "A bare `state_dict`",
        files.bare,
        ((f"compress resnet20.pth {SETTINGS}", 0),),
        "`torch.save(model.state_dict(), ...)`. The class is recognised from names and shapes.",
    ),
    Layout(
        "lightning",
        "A Lightning checkpoint",
        files.lightning,
        ((f"compress epoch=9-step=3910.ckpt {SETTINGS}", 0),),
        "`Trainer.save_checkpoint`: weights under `state_dict`, each name with the attribute's "
        "`model.` in front.",
    ),
    Layout(
        "parallel",
        "`DataParallel`, with figures beside the weights",
        files.parallel,
        ((f"compress ckpt.pth {SETTINGS}", 0),),
        "`{'net': net.state_dict(), 'acc': ..., 'epoch': ...}`, each name with `module.` in front.",
    ),
    Layout(
        "compiled",
        "`torch.compile`",
        files.compiled,
        ((f"compress last.pt {SETTINGS}", 0),),
        "Saved from the compiled module: each name with `_orig_mod.` in front.",
    ),
    Layout(
        "timm",
        "timm's `model.safetensors`",
        files.timm_weights,
        (
            (f"compress model.safetensors {SETTINGS}", 1),
            (f"compress model.safetensors --arch timm:resnet10t {SETTINGS}", 0),
        ),
        "As on its hub: bare tensors, no word of the class.",
    ),
    Layout(
        "cifar",
        "A CIFAR repository with its own `models/` and `utils.py`",
        files.repository,
        (
            (f"compress checkpoint/ckpt.pth {SETTINGS}", 1),
            (f"compress checkpoint/ckpt.pth --arch models:SmallNet2 {SETTINGS}", 1),
            (
                "compress checkpoint/ckpt.pth --arch models/smallnet.py:SmallNet2 "
                f"--input-shape 1,3,32,32 {SETTINGS}",
                0,
            ),
        ),
        "kuangliu/pytorch-cifar's layout: relative imports, `from utils import ...`, a checkpoint "
        "of `DataParallel`.",
    ),
    Layout(
        "torchvision",
        "torchvision, with a head of one's own",
        files.torchvision_weights,
        ((f"compress mobilenet_v2_pets.pth --arch torchvision:mobilenet_v2 {SETTINGS}", 0),),
        "The number of classes is the checkpoint's.",
    ),
    Layout(
        "tf2onnx",
        "ONNX from TensorFlow",
        files.tensorflow,
        ((f"compress model.onnx {SETTINGS}", 0),),
        "tf2onnx's names, NHWC input, SAME padding.",
    ),
    Layout(
        "torchscript",
        "TorchScript",
        files.script,
        (
            (f"compress model_scripted.pt {SETTINGS}", 1),
            (f"compress model_scripted.pt --input-shape 1,3,32,32 {SETTINGS}", 0),
        ),
        "`torch.jit.trace(...).save(...)`. It does not tell the size of its input.",
    ),
    Layout(
        "pt2",
        "`torch.export.save`",
        files.exported,
        ((f"compress model.pt2 {SETTINGS}", 0),),
        "Recorded for one input; it goes on for any batch.",
    ),
)

HEAD = """# Ten layouts, tried from an empty directory

Written by `python -m compressor.benchmarks.layouts`, which makes each layout, runs these commands
and keeps what they print. All weights are random: what counts is whether a network is found, built
and written, and what is said where not.
"""


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.layouts")
    names = [layout.name for layout in LAYOUTS]
    described.add_argument("--only", nargs="*", choices=names, default=names)
    described.add_argument("-o", "--output", type=Path, default=PAGE)
    arguments = described.parse_args(words)
    parts, wrong = [HEAD], []
    for number, layout in enumerate(LAYOUTS, 1):
        if layout.name not in arguments.only:
            continue
        text, bad = tried(layout)
        parts.append(f"## {number}. {layout.title}\n\n{layout.told}\n\n```console\n{text}```\n")
        wrong += bad
        print(layout.name, "FAILED" if bad else "done", flush=True)
    arguments.output.write_text("\n".join(parts), encoding="utf-8")
    if wrong:
        raise SystemExit("\n".join(wrong))


def tried(layout: Layout) -> tuple[str, list[str]]:
    """What a user sees, and the commands that did not end as they should."""
    shown, wrong = "", []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layout.make(folder)
        for command, expected in layout.steps:
            done = run(command, folder)
            shown += f"$ {command}\n{cleaned(done.stdout + done.stderr, folder)}"
            if done.returncode != expected:
                wrong.append(
                    f"{layout.name}: {command}: exit code {done.returncode}\n{done.stderr}"
                )
    return shown, wrong


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    _, *words = shlex.split(command)
    return subprocess.run(
        [sys.executable, "-m", "compressor", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "110"},
    )


def cleaned(text: str, folder: Path) -> str:
    """Without the folder's own name, spaces at lines' ends, or more than one empty line.

    Tables of layers and latencies, and what no run measures, are the same everywhere: left out.
    """
    text = re.sub(r"(?ms)^(layers, and|ONNX Runtime, CPU,).*?\n\n", "...\n", text)
    text = re.sub(r"(?m)^(zeros alone|not measured: ).*\n", "", text)
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


if __name__ == "__main__":
    main()
