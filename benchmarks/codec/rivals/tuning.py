"""NNCodec at many settings: bytes of its bitstream and accuracy of what it decodes to.

    python -m compressor.benchmarks.codec.rivals.tuning resnet20 CHECKPOINT --data cifar10 \\
        --environment FOLDER --qp=-32:-16 --dq 0 1 --bnf 0 1 --nonweight-qp -40 --rate 0 1 -o FILE

Every combination of the settings given is a row of FILE, which grows: combinations that stand in it
are not run again. A row's bytes are those of the whole bitstream, which holds every tensor.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compressor.benchmarks.codec.accuracy import Test, float_tensors
from compressor.benchmarks.codec.rivals.nncodec import NNCodec, Settings
from compressor.benchmarks.environment import environment

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    output: Path = arguments.output
    result = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {"rows": []}
    rows: list[Row] = result["rows"]
    commands = [*result.get("commands", []), environment()["command"]]
    tensors = float_tensors(arguments.checkpoint)
    test = Test(arguments.arch, arguments.data, arguments.data_root)
    with NNCodec(arguments.environment) as codec:
        codec.load(tensors)
        for settings in combinations(arguments):
            key = {"network": arguments.arch, "method": "nncodec", "settings": asdict(settings)}
            if any(key.items() <= row.items() for row in rows):
                continue
            size = codec.encode(settings)["bytes"]
            accuracy = round(test.accuracy(codec.decode()), 4)
            rows.append({**key, "bytes": size, "accuracy": accuracy, "images": len(test.split)})
            print(arguments.arch, changed(settings), f"{size:,} B  {accuracy:.2f} %", flush=True)
            result = {"benchmark": "codec/rivals/tuning", "nncodec": codec.version}
            result |= {"commands": commands, "environment": environment(), "rows": rows}
            output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.codec.rivals.tuning")
    described.add_argument("arch", help="a name of the registry")
    described.add_argument("checkpoint", type=Path)
    described.add_argument("--data", required=True, help="cifar10 or mnist")
    described.add_argument("--data-root", type=Path)
    described.add_argument("--environment", type=Path, required=True, help="NNCodec's, as built")
    described.add_argument("--qp", type=span, required=True, help="FIRST:LAST, both included")
    described.add_argument("--dq", type=int, nargs="+", default=[1])
    described.add_argument("--bnf", type=int, nargs="+", default=[0])
    described.add_argument("--nonweight-qp", type=int, nargs="+", default=[-75])
    described.add_argument("--rate", type=float, nargs="+", default=[0.0], help="lambda_scale")
    described.add_argument("--opt-qp", type=int, nargs="+", default=[0])
    described.add_argument("--qp-density", type=int, default=2, help="3 halves the steps of qp")
    described.add_argument("--unary", type=int, nargs="+", default=[10], help="see Settings")
    described.add_argument("-o", "--output", type=Path, required=True)
    return described


def span(words: str) -> range:
    """``-32:-16`` or ``-32:-16:4``, both ends included."""
    first, last, *every = (int(word) for word in words.split(":"))
    return range(first, last + 1, *every)


def combinations(arguments: argparse.Namespace) -> Iterator[Settings]:
    for unary, rate, opt_qp, bnf, nonweight_qp, dq, qp in itertools.product(
        arguments.unary,
        arguments.rate,
        arguments.opt_qp,
        arguments.bnf,
        arguments.nonweight_qp,
        arguments.dq,
        arguments.qp,
    ):
        yield Settings(
            qp=qp,
            nonweight_qp=nonweight_qp,
            use_dq=bool(dq),
            bnf=bool(bnf),
            lambda_scale=rate,
            row_skipping=True,
            opt_qp=bool(opt_qp),
            qp_density=arguments.qp_density,
            cabac_unary_length_minus1=unary,
        )


def changed(settings: Settings) -> str:
    """The settings that are not NNCodec's defaults."""
    defaults = asdict(Settings())
    return " ".join(f"{k}={v}" for k, v in asdict(settings).items() if v != defaults[k])


if __name__ == "__main__":
    main()
