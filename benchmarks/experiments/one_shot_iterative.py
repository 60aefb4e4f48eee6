"""One-shot against iterative pruning with equal retraining, and torch's own pruning beside both.

    python -m compressor.benchmarks.experiments.one_shot_iterative CHECKPOINT --data-root FOLDER

Twelve rows: 50, 75 and 90 % of the weights (of each layer, or with ``--scope global`` of all
together), pruned at once or in as many rounds as there are epochs of retraining, 3 or 5. CHECKPOINT
is ``resnet20-12fca82f.th``. Each row is one run of the tool; beside it, ``torch.nn.utils.prune``
prunes the same checkpoint on the same schedule, retrained by the same loop without distillation,
which it does not have. ``masks_equal`` tells whether the first round's masks are the same. Writes
``results/one_shot_iterative.json``, after each row what there is so far, and
``results/one_shot_iterative-SCOPE.svg``; rows that the file has already are not repeated.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune as rival

from compressor import api, loading
from compressor.benchmarks.environment import command_line
from compressor.benchmarks.experiments import RESULTS, compress, save
from compressor.layers import compressible_layers
from compressor.network import Context
from compressor.pruning.goals import goal_of, magnitude_masks
from compressor.recipe import Recipe
from compressor.reporting.axes import Axis, percent
from compressor.reporting.svg import Chart, file
from compressor.settings import Prune
from compressor.training.evaluation import evaluate
from compressor.training.fit import fit

Json = dict[str, Any]
SPARSITIES = (0.5, 0.75, 0.9)
EPOCHS = (3, 5)
CASE = ("scope", "sparsity", "epochs", "rounds")
"""What tells one row from the others."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", help="where the data set lies")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--distill", type=float, default=0.9)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--scope", choices=["layer", "global"], default="layer")
    parser.add_argument("--name", default="one_shot_iterative", help="of the result's files")
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = RESULTS / f"{options.name}.json"
    known: Json = json.loads(path.read_text()) if path.exists() else {"commands": [], "rows": []}
    rows: list[Json] = known["rows"]
    commands = list(dict.fromkeys([*known["commands"], command_line()]))
    with tempfile.TemporaryDirectory() as scratch:
        for sparsity, epochs in itertools.product(options.sparsities, options.epochs):
            for rounds in (1, epochs):
                case = dict(zip(CASE, (options.scope, sparsity, epochs, rounds), strict=True))
                if any(row.items() >= case.items() for row in rows):
                    continue
                flags = settings(options, sparsity, epochs, rounds)
                row = ours(options, flags, Path(scratch))
                row |= theirs(options, sparsity, epochs, rounds)
                command = f"compress {options.checkpoint.name} {' '.join(flags)}"
                rows.append({**case, **row, "command": command})
                print(line(rows[-1]), flush=True)
                rows.sort(key=lambda row: [row[name] for name in CASE])
                save(options.name, {"rows": rows}, commands)
    mine = [row for row in rows if row["scope"] == options.scope]
    draw(mine, RESULTS / f"{options.name}-{options.scope}.svg")


def settings(options: argparse.Namespace, sparsity: float, epochs: int, rounds: int) -> list[str]:
    """The tool's flags of one row: ``epochs`` in all, shared out among the rounds."""
    given = {
        **{"arch": options.arch, "data": options.data, "threads": options.threads},
        **{"sparsity": sparsity, "scope": options.scope},
        **{"rounds": rounds, "epochs": epochs // rounds},
        **{"lr": options.lr, "distill": options.distill},
    }
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def ours(options: argparse.Namespace, flags: list[str], folder: Path) -> Json:
    """One run of the tool: accuracy, time per image in ONNX Runtime, sparsity of each layer."""
    root = [] if options.data_root is None else [f"--data-root={Path(options.data_root).resolve()}"]
    model = str(options.checkpoint.resolve())
    compress([model, *flags, *root, "-q", "-o", "out", "--force"], folder)
    report = json.loads((folder / "out" / "report.json").read_text())
    stages, times = report["stages"], report["latency"]["ms"]
    dense, pruned = stages["dense"]["accuracy"], stages["prune"]["accuracy"]
    return {
        "dense_accuracy": dense,
        "accuracy": pruned,
        "drop_points": 100 * (dense - pruned),
        "ms_per_image": {name: times[name]["median"] for name in ("dense", "compressed")},
        "speedup": times["dense"]["median"] / times["compressed"]["median"],
        "layers": {row["layer"]: row["sparsity"] for row in stages["prune"]["layers"]},
        "seconds": stages["prune"]["seconds"],
    }


def theirs(options: argparse.Namespace, sparsity: float, epochs: int, rounds: int) -> Json:
    """torch.nn.utils.prune on the same schedule; its amounts are fractions of what is left."""
    network = loading.load(options.checkpoint, arch=options.arch)
    recipe = Recipe().with_settings(
        {
            **{"data.spec": options.data, "prune.sparsity": sparsity},
            **{"prune.scope": options.scope, "prune.rounds": rounds},
            **{"prune.retrain.epochs": epochs // rounds, "prune.retrain.lr": options.lr},
        }
    )
    data = api.load_data(recipe, network, options.data_root)
    if data is None or recipe.prune is None:
        raise RuntimeError("a recipe with data and pruning has neither")
    layers = compressible_layers(network.module)
    weights = [(layer.module, "weight") for layer in layers.values()]
    together = [weights] if options.scope == "global" else [[each] for each in weights]
    part = 1 - (1 - sparsity) ** (1 / rounds)
    wanted = first_masks(recipe.prune, network.module)
    equal = False
    for step in range(rounds):
        for chosen in together:
            rival.global_unstructured(chosen, rival.L1Unstructured, amount=part)
        if step == 0:
            masks = {n: each.module.get_buffer("weight_mask") for n, each in layers.items()}
            equal = all(np.array_equal(masks[n].bool().numpy(), wanted[n]) for n in wanted)
        fit(network.module, recipe.prune.retrain, Context(data), "torch")
    accuracy = evaluate(network.module, data, data.test)
    return {"torch_accuracy": accuracy, "masks_equal": equal}


def first_masks(pruning: Prune, module: nn.Module) -> dict[str, Any]:
    """This tool's masks of the first round."""
    layers = compressible_layers(module)
    return magnitude_masks(goal_of(layers, pruning).in_round(1, pruning.rounds), layers)


def line(row: Json) -> str:
    return (
        f"{100 * row['sparsity']:.0f} % {row['epochs']} epochs {row['rounds']} rounds: "
        f"{100 * row['accuracy']:.2f} % ({row['drop_points']:+.2f} points lost), torch's "
        f"{100 * row['torch_accuracy']:.2f} %, masks {'equal' if row['masks_equal'] else 'DIFFER'}"
    )


def draw(rows: list[Json], path: Path) -> None:
    """Accuracy against sparsity, a line for each schedule; dashed: torch's pruning."""
    dense = rows[0]["dense_accuracy"]
    values = [dense, *(row[key] for row in rows for key in ("accuracy", "torch_accuracy"))]
    zeros = [row["sparsity"] for row in rows]
    chart = Chart(
        "Accuracy against sparsity",
        "a line for each number of epochs, one-shot and in rounds; dashed: torch.nn.utils.prune",
        Axis("sparsity", min(zeros) - 0.02, max(zeros) + 0.02, text=percent),
        Axis("accuracy", min(values) - 0.002, max(values) + 0.002, text=percent),
        "rounds",
        height=360,
        width=560,
    )
    chart.level(dense, "dense")
    for color, (epochs, once) in enumerate((e, once) for e in EPOCHS for once in (True, False)):
        mine = [r for r in rows if r["epochs"] == epochs and (r["rounds"] == 1) == once]
        if not mine:
            continue
        label = f"{epochs} epochs, " + ("one-shot" if once else f"{epochs} rounds")
        chart.series([(r["sparsity"], r["accuracy"]) for r in mine], color, label)
        theirs = [(r["sparsity"], r["torch_accuracy"]) for r in mine]
        chart.curve(theirs, color, css="curve dash2")
        chart.dots(theirs, color, [f"torch's, {label}"] * len(theirs))
    path.write_text(file(chart.done()), encoding="utf-8")


if __name__ == "__main__":
    main()
