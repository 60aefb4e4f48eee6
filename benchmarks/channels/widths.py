"""The width profiles that come with the tool, measured: ``compressor/channels/profiles/``.

python -m compressor.benchmarks.channels.widths ort-avx512
python -m compressor.benchmarks.channels.widths wasm --node FOLDER

ONNX Runtime is measured by the same code as ``--round auto``; WebAssembly by onnxruntime-web in
Node, from a FOLDER in which ``npm install onnxruntime-web`` was run.
"""

import argparse
import json
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compressor.benchmarks.environment import environment
from compressor.channels import widths
from compressor.channels.widths import SHAPES, WIDTHS, Curve, Profile, convolution, measure, step_of

SCRIPT = Path(__file__).with_name("widths.mjs")
FOLDER = Path(widths.__file__).with_name("profiles")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m compressor.benchmarks.channels.widths")
    parser.add_argument("name", help="ort-... for ONNX Runtime, wasm for onnxruntime-web")
    parser.add_argument("--node", type=Path, help="folder with node_modules/onnxruntime-web")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args(words)
    web = arguments.name.startswith("wasm")
    if web and arguments.node is None:
        parser.error("wasm needs --node FOLDER, where npm install onnxruntime-web was run")
    profile = in_node(arguments.node, arguments.rounds) if web else measure()
    for curve in profile.curves:
        shape = f"{curve.kernel}x{curve.kernel}, {curve.inputs} inputs, {curve.size} pixels"
        print(f"{shape:32}step {step_of(curve)}")
    table = {**json.loads(profile.to_json()), "environment": environment()}
    target = arguments.output or FOLDER / f"{arguments.name}.json"
    target.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def in_node(folder: Path, rounds: int) -> Profile:
    """The profile of onnxruntime-web's WebAssembly, by one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {}
        for kernel, channels, size in SHAPES:
            for width in WIDTHS:
                name = f"{kernel}-{channels}-{size}-{width}"
                content = convolution(kernel, channels, width, size)
                Path(scratch, f"{name}.onnx").write_bytes(content)
                inputs[name] = [1, channels, size, size]
        Path(scratch, "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
        command = ["node", str(SCRIPT.resolve()), scratch, str(rounds)]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    curves = []
    for shape in SHAPES:
        names = ["-".join(map(str, (*shape, width))) for width in WIDTHS]
        curves.append(Curve(*shape, WIDTHS, tuple(round(found["ms"][name], 5) for name in names)))
    return Profile(f"onnxruntime-web {found['version']}, wasm", platform.machine(), tuple(curves))


if __name__ == "__main__":
    main()
