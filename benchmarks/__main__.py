"""The README's tables, measured and written between their comments: ``make bench``.

    python -m compressor.benchmarks [--checkpoints FOLDER] [--data-root FOLDER] [--anew ...]

``peers`` is measured each time, ``cuda`` where there is a GPU. ``codec`` and ``latency`` take long,
and are measured where ``--anew`` names them; else their tables come from the committed results,
and say when these were taken. ``codec`` needs the checkpoints of ResNet-20 and ResNet-56.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compressor.benchmarks import cuda, readme
from compressor.benchmarks.channels import latency
from compressor.benchmarks.channels.rivals import environment as torch_pruning
from compressor.benchmarks.channels.thin_resnets import CHECKPOINTS
from compressor.benchmarks.codec import sizes
from compressor.benchmarks.codec.rivals import environment as nncodec
from compressor.benchmarks.experiments import RESULTS
from compressor.benchmarks.peers import __main__ as peers
from compressor.benchmarks.peers import table
from compressor.reporting.markdown import joined

Json = dict[str, Any]
TABLES = ("peers", "latency", "codec", "cuda")
PICTURE = "benchmarks/results/peers.svg"


def main(words: Sequence[str] | None = None) -> None:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks")
    described.add_argument("--checkpoints", type=Path)
    described.add_argument("--data-root", type=Path)
    described.add_argument("--environments", type=Path, default=Path("build/peers/environments"))
    described.add_argument("--anew", nargs="*", choices=TABLES, default=["peers", "cuda"])
    described.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = described.parse_args(words)
    text = arguments.readme.read_text(encoding="utf-8")
    for name in TABLES:
        if name in arguments.anew:
            MEASURED[name](arguments)
        if (RESULTS / FILES[name]).exists():
            result = json.loads((RESULTS / FILES[name]).read_text(encoding="utf-8"))
            text = readme.filled(text, name, WRITTEN[name](result))
    arguments.readme.write_text(text, encoding="utf-8")
    print(f"wrote the tables of {arguments.readme}")


# ---- measuring ---------------------------------------------------------------------------------


def measure_peers(arguments: argparse.Namespace) -> None:
    where = ("checkpoints", "data_root", "environments")
    given = {name: getattr(arguments, name) for name in where if getattr(arguments, name)}
    peers.main([w for n, v in given.items() for w in (f"--{n.replace('_', '-')}", str(v))])


def measure_latency(arguments: argparse.Namespace) -> None:
    folder = arguments.environments / "torch-pruning"
    torch_pruning.build(folder)
    latency.main(["--environment", str(folder)])


def measure_codec(arguments: argparse.Namespace) -> None:
    if arguments.checkpoints is None:
        raise SystemExit("codec needs --checkpoints, with ResNet-20 and ResNet-56")
    folder = arguments.environments / "nncodec"
    nncodec.build(folder)
    files = [str(arguments.checkpoints / name) for name in CHECKPOINTS.values()]
    sizes.main([*files, "--environment", str(folder)])


def measure_cuda(_: argparse.Namespace) -> None:
    import torch

    if torch.cuda.is_available():
        cuda.main([])
    else:
        print("no GPU here: the table of CUDA stays as it is")


# ---- writing -----------------------------------------------------------------------------------


def write_peers(result: Json) -> str:
    return f"{table.markdown(result)}\n![accuracy against bytes and time]({PICTURE})"


def write_latency(result: Json) -> str:
    """How many times fewer MACs, and less time, of each network and tool."""
    ways = ("ours", "Torch-Pruning, unrounded", "Torch-Pruning, rounded")
    heads = ("network", "ours", "Torch-Pruning", "Torch-Pruning, widths rounded to 16")
    rows = [
        (row["network"].rpartition(":")[2], *(_fewer(row["ways"].get(way)) for way in ways))
        for row in result["rows"]
    ]
    return f"{joined(heads, rows)}\n\n{_taken(result)}: MACs, time."


def _fewer(way: Json | None) -> str:
    if way is None or "speed_up" not in way:
        return "-" if way is None else str(way.get("error", "-"))
    return f"{1 / way['macs_left']:.2f}x, {way['speed_up']:.2f}x"


def write_codec(result: Json) -> str:
    """Bytes of the same integers in each file."""
    heads = ("network", "step", "NNCodec", "`huffman`", "`fast`", "`best`")
    lines = []
    for row in result["rows"]:
        found, percent = row["all"], row["all"]["percent"]
        ours = [f"{found[n]:,} ({percent[n]:+.1f} %)" for n in ("huffman", "fast", "best")]
        name = row["network"].partition("-")[0]
        lines.append((name, f"qp {row['qp']}", f"{found['nncodec']:,}", *ours))
    return f"{joined(heads, lines, left=2)}\n\nNNCodec {result['nncodec']}. {_taken(result)}."


def _taken(result: Json) -> str:
    where = result["environment"]
    return f"Taken {where['date'][:10]} on an {where['cpu']}"


MEASURED: dict[str, Callable[[argparse.Namespace], None]] = {
    "peers": measure_peers,
    "latency": measure_latency,
    "codec": measure_codec,
    "cuda": measure_cuda,
}
WRITTEN: dict[str, Callable[[Json], str]] = {
    "peers": write_peers,
    "latency": write_latency,
    "codec": write_codec,
    "cuda": cuda.table,
}
FILES = {
    "peers": "peers.json",
    "latency": "channels-latency.json",
    "codec": "codec-sizes.json",
    "cuda": "cuda.json",
}


if __name__ == "__main__":
    main()
