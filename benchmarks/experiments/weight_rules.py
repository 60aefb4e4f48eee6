"""Every rule of pruning weights by one command each: what it keeps, and in how many bytes.

    python -m compressor.benchmarks.experiments.weight_rules CHECKPOINT --data-root FOLDER

Of a trained ResNet (CHECKPOINT is ``resnet20-12fca82f.th``): magnitudes beside second order, layer
by layer and over all layers, without any retraining; the schedules at one sparsity with one epoch;
the best of them with more; ternary weights; targets. Settings are stated, not searched for; one
seed. A row is one run of the tool, and rows that ``results/weight_rules.json`` has already are not
repeated.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compressor.benchmarks.experiments import RESULTS, Json, compress, save, summary
from compressor.reporting.axes import Axis, percent
from compressor.reporting.svg import Chart, file

NAME = "weight_rules"
MISSED = 3
"""The exit code where a target was not met: all files are written."""
EPOCH = ("--epochs", "1", "--lr", "0.02", "--distill")

OBS, RAMP = ("--criterion", "obs"), ("--schedule", "gradual")
LONGER = (
    ("second order", OBS, 0.75, 3, 0.01, 128, "fp32"),
    ("second order", OBS, 0.9, 5, 0.01, 128, "fp32"),
    ("second order", OBS, 0.9, 12, 0.05, 64, "fp32"),
    ("gradual", RAMP, 0.9, 24, 0.05, 64, "bf16"),
)
"""How, sparsity, epochs, learning rate, batch size and precision of more retraining."""

SPARSITIES = (0.7, 0.8, 0.9)
RULES = {
    "layer": (),
    "erk": ("--scope", "erk"),
    "lamp": ("--scope", "lamp"),
    "global": ("--global",),
    "second order": ("--global", "--criterion", "obs"),
}
CASES: dict[str, tuple[str, ...]] = {
    **{
        f"{rule} {sparsity}": ("--sparsity", str(sparsity), *words, "--epochs", "0")
        for sparsity in SPARSITIES
        for rule, words in RULES.items()
    },
    **{
        f"{name}, one epoch": ("--sparsity", "0.9", "--scope", "global", *words, *EPOCH)
        for name, words in {
            "rounds": (),
            "gradual": ("--schedule", "gradual"),
            "splicing": ("--schedule", "splicing"),
            "movement": ("--schedule", "movement"),
            "second order": ("--criterion", "obs"),
        }.items()
    },
    **{
        f"{name} {sparsity}, {epochs} epochs": (
            *("--sparsity", str(sparsity), "--global", *words),
            *("--epochs", str(epochs), "--lr", str(lr), "--distill", "0.9"),
            *("--set", f"prune.retrain.batch_size={batch_size}"),
            *(() if bits == "fp32" else ("--set", f"prune.retrain.precision={bits}")),
        )
        for name, words, sparsity, epochs, lr, batch_size, bits in LONGER
    },
    "ternary, one epoch": (
        *("--quantize", "*=ternary,conv1=8bit,linear=8bit", "--finetune-epochs", "1"),
        *("--set", "share.finetune.lr=0.01", "--distill"),
    ),
    "size 10 %": ("--target-size", "10%", "--finetune-epochs", "0", *EPOCH),
    "ratio 20": ("--target-ratio", "20", "--finetune-epochs", "0", *EPOCH),
    # The checkpoint was trained on what are validation images here: what is retrained on others
    # forgets them, so that a drop can be told without retraining alone.
    "drop 0.5": ("--max-drop", "0.5", "--finetune-epochs", "0", "--epochs", "0"),
    "ratio 400": (
        *("--target-ratio", "400", "--max-drop", "0.5"),
        *("--finetune-epochs", "0", "--epochs", "0"),
    ),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m compressor.benchmarks.experiments.{NAME}")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", help="where the data set lies")
    parser.add_argument("--threads", default="1", help="CPU threads of torch")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args(words)
    path = RESULTS / f"{NAME}.json"
    known: Json = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    rows: dict[str, Json] = known["rows"]
    for case in options.cases:
        if case not in rows:
            rows[case] = row(options, CASES[case])
            print(f"{case}: {line(rows[case])}", flush=True)
            ordered = {name: rows[name] for name in CASES if name in rows}
            save(NAME, {"rows": ordered}, [each["command"] for each in ordered.values()])
    (RESULTS / f"{NAME}.svg").write_text(picture(rows), encoding="utf-8")


def row(options: argparse.Namespace, words: Sequence[str]) -> Json:
    """One run of the tool."""
    root = [] if options.data_root is None else [f"--data-root={Path(options.data_root).resolve()}"]
    words = [*words, "--arch", options.arch, "--data", options.data, "--threads", options.threads]
    with tempfile.TemporaryDirectory() as scratch:
        folder, code = Path(scratch), 0
        try:
            compress([str(options.checkpoint.resolve()), *words, *root, "-q", "-o", "out"], folder)
        except subprocess.CalledProcessError as error:
            if error.returncode != MISSED:
                raise
            code = MISSED
        report = json.loads((folder / "out" / "report.json").read_text())
    return {
        "command": f"compress {options.checkpoint.name} {' '.join(words)}",
        "exit_code": code,
        **summary(report),
        "targets": report.get("targets"),
    }


def picture(rows: dict[str, Json]) -> str:
    """An SVG file: accuracy against sparsity, a line for each rule without retraining."""

    def at(name: str) -> tuple[float, float]:
        row = rows[name]
        return row["sparsity"], 1 - row["error_percent"]["encode"] / 100

    once = [[f"{rule} {each}" for each in SPARSITIES] for rule in RULES]
    longer = [
        name
        for name, words in CASES.items()
        if name in rows and "--sparsity" in words and words[-2:] != ("--epochs", "0")
    ]
    dense = 1 - next(iter(rows.values()))["error_percent"]["dense"] / 100
    chart = Chart(
        "Accuracy against sparsity",
        "a line for each rule of what to prune, without retraining; dots: retrained",
        Axis("sparsity", min(SPARSITIES) - 0.01, max(SPARSITIES) + 0.01, text=percent),
        Axis("accuracy", 0.0, 1.0, text=percent),
        "rules",
        height=380,
        width=560,
    )
    chart.level(dense, "dense")
    for color, names in enumerate(once):
        if rows.keys() >= set(names):
            chart.series([at(name) for name in names], color, list(RULES)[color])
    if longer:
        chart.dots([at(name) for name in longer], len(RULES), longer)
        chart.named(len(RULES), "retrained")
    return file(chart.done())


def line(found: Json) -> str:
    errors = found["error_percent"]
    return (
        f"{100 - errors['encode']:.2f} % (dense {100 - errors['dense']:.2f} %), "
        f"{100 * found['sparsity']:.1f} % zeros, {found['artifact_bytes']:,} bytes, "
        f"{found['ratio']:.1f}x smaller, exit code {found['exit_code']}"
    )


if __name__ == "__main__":
    main()
