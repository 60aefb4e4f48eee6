"""``compress run``: the main job."""

import json
from pathlib import Path
from typing import Any

import click

from compressor.cli.settings import recipe_of
from compressor.cli.shared import FILE, data_options, listening, loading_options
from compressor.errors import OutputError, TargetMissed, UsageError
from compressor.recipe import Recipe
from compressor.settings import DISTILL, RATE, Targets


@click.command(short_help="Compress a checkpoint (the default command).")
@click.argument("model", type=FILE)
@click.option(
    "--channels",
    metavar="RATIO",
    help="Remove this fraction of the channels, so that a dense runtime is faster: 0.3, or per "
    "layer layer1.*=0.3; with --global, of all channels together, wherever they are worth least.",
)
@click.option("--global", "everywhere", is_flag=True, help="See --channels and --scope.")
@click.option(
    "--target-macs",
    metavar="PART",
    help="Remove as many channels as leave this part of the multiply-adds: 0.5.",
)
@click.option(
    "--target-latency",
    metavar="PART",
    help="Remove as many channels as make ONNX Runtime take this part of its time here: 0.5.",
)
@click.option(
    "--criterion",
    metavar="NAME",
    help="What a channel is worth: l2, l1, gamma, next, taylor, obs or random [default: l2]; "
    "without channels to remove, what a weight is under --sparsity: magnitude or obs, which also "
    "fits what is left to the dense network, so that --epochs 0 will do.",
)
@click.option(
    "--round",
    metavar="STEP",
    help="Widths are multiples of 1, 4, 8, 16 or 32; auto is what this machine's convolutions like "
    "best, ort-avx512 and wasm what those machines' do [default: auto].",
)
@click.option(
    "--freeze-residual", is_flag=True, help="Leave channels that a sum of activations joins."
)
@click.option(
    "--prune-sensitivity",
    metavar="S",
    help="Prune weights below S standard deviations of their layer: 0.25, or per layer "
    "conv=0.5,fc=1.5 or layer1.*=0.3 (the last rule that fits wins).",
)
@click.option(
    "--sparsity",
    metavar="S",
    help="Prune this fraction of the weights, the smallest: 0.9, or per layer conv*=0.7,fc1=0.95.",
)
@click.option(
    "--scope",
    metavar="NAME",
    help="What --sparsity is of: layer (each), global (all together, as with --global), erk (by "
    "the layers' shapes) or lamp (layer-adaptive magnitudes) [default: layer].",
)
@click.option(
    "--schedule",
    metavar="NAME",
    help="When weights are pruned: rounds (each before a retraining), gradual (along a cubic while "
    "retraining), splicing (so that they may return) or movement (those that retraining moves "
    "towards zero) [default: rounds].",
)
@click.option("--rounds", type=int, help="Rounds of pruning and retraining [default: 1].")
@click.option(
    "--quantize",
    metavar="BITS",
    help="Share weights: 5bit is 32 centroids per layer; or conv=8bit,fc=5bit, or patterns. "
    "ternary trains weights of three values. auto finds a grid for every layer from what an error "
    "there does to the outputs, and needs no retraining.",
)
@click.option(
    "--max-drop",
    metavar="PERCENT",
    help="Find the settings of every layer: the smallest artifact whose accuracy on validation "
    "images falls by at most so many points. With --quantize auto: as coarse as loses at most so "
    "many percent of the validation images.",
)
@click.option(
    "--target-size",
    metavar="PART",
    help="Find the settings of every layer: the artifact of at most this part of the dense "
    "network's bytes, 25%, that is most accurate.",
)
@click.option(
    "--target-ratio", metavar="TIMES", help="The same: at least so many times smaller, 40."
)
@click.option(
    "--rate-aware",
    metavar="RATE",
    is_flag=False,
    flag_value=str(RATE),
    help="Share weights by what their indices cost in the artifact, not by the error alone: RATE "
    f"is what a bit is worth in squared error, of a layer's mean square [{RATE} if not given]; or "
    "per layer.",
)
@click.option(
    "--profile",
    metavar="NAME",
    help="How the artifact is coded: best (smallest), fast (decodes fastest) or huffman (as in "
    "the paper) [default: best below 5 million parameters, else fast].",
)
@click.option(
    "--epochs", type=int, help="Epochs of retraining after channels or weights were removed."
)
@click.option("--lr", type=float, help="Learning rate of that retraining.")
@click.option("--finetune-epochs", type=int, help="Epochs of fine-tuning the centroids.")
@click.option(
    "--distill",
    type=click.FloatRange(0, 1),
    metavar="WEIGHT",
    is_flag=False,
    flag_value=DISTILL,
    help="In all retraining, WEIGHT of the loss is for the dense network's answers, the rest for "
    f"the labels [{DISTILL} if not given].",
)
@data_options
@loading_options
@click.option(
    "--recipe", "recipe_file", metavar="FILE", help="A recipe file, or a shipped one's name."
)
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any setting of the recipe, by its dotted name: share.init=optimal, say, places centroids "
    "for the least squared error.",
)
@click.option(
    "--save-recipe", type=FILE, metavar="FILE", help="Also write the resolved recipe here."
)
@click.option("--weights-only", is_flag=True, help="Leave the ONNX graph out of the artifact.")
@click.option(
    "--emit",
    metavar="LIST",
    help="Further files, each run and measured in ONNX Runtime: ort (its own format, for mobile "
    "and web builds), int8 (QDQ, calibrated on the --data), fp16; or onnx, which is written "
    "anyway, to have it measured there too.",
)
@click.option("-o", "--output", type=FILE, metavar="FOLDER", help="[default: NAME-compressed]")
@click.option("--force", is_flag=True, help="Overwrite the output folder's files.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run where it stopped.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
@click.option("-v", "--verbose", is_flag=True, help="List every layer.")
def run(model: Path, **options: Any) -> None:
    """Compress MODEL: a checkpoint (.pt, .pth, .ckpt, .safetensors), or a .pt2 or .onnx file.

    Writes the artifact, the dense ONNX file, report.json and recipe.toml into one folder, and with
    --emit more. Without --data nothing is retrained and accuracy is not measured.
    """
    recipe, targets = recipe_of(options)
    if options["force"] and options["resume"]:
        raise UsageError("--force starts over and --resume continues: give one of them")

    from compressor import distributed

    with distributed.started(recipe.device):
        _run(model, recipe, targets, options)


def _run(model: Path, recipe: Recipe, targets: Targets | None, options: dict[str, Any]) -> None:
    """Of several ranks, each runs the recipe, and the first writes and prints."""
    from compressor import api, distributed

    first = distributed.is_first()
    network = api.network_of(model, recipe, trust_pickle=options["trust_pickle"])
    progress = listening(options["quiet"] or not first)
    recipe = api.resolve(recipe, network, progress)
    data = api.load_data(recipe, network, options["data_root"])
    folder = options["output"] or Path(f"{network.name}-compressed")
    if options["dry_run"] and targets is not None:
        raise UsageError(
            "--dry-run runs nothing, but what a target asks for is found by running: leave it out"
        )
    job = api.job(
        network,
        recipe,
        data,
        folder,
        progress,
        targets,
        resume=options["resume"],
        force=options["force"],
    )
    recipe = job.recipe
    if first and options["save_recipe"] is not None:
        _save(recipe, options["save_recipe"], force=options["force"])
    if options["dry_run"]:
        if first:
            _dry_run(recipe, job.plan, folder, options)
        return
    try:
        report = job.execute(resume=options["resume"], force=options["force"])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: the same command with --resume goes on from where it stopped"
        ) from None
    if first:
        _show(report, folder, options)
    if report["missed"]:
        raise TargetMissed("; ".join(report["missed"]) + " (everything else is there)")


def _save(recipe: Recipe, target: Path, *, force: bool) -> None:
    from compressor.files import write_atomically

    content = recipe.to_toml().encode()
    if target.exists() and not force and target.read_bytes() != content:
        raise OutputError(f"--save-recipe {target}: the file exists; add --force to overwrite it")
    write_atomically(target, content)


def _dry_run(
    recipe: Recipe, rows: list[dict[str, Any]], folder: Path, options: dict[str, Any]
) -> None:
    if options["as_json"]:
        click.echo(json.dumps({"folder": str(folder), "layers": rows, "recipe": recipe.to_toml()}))
    if options["as_json"] or options["quiet"]:
        return
    from compressor.reporting.console import tables
    from compressor.reporting.plan import plan_table
    from compressor.reporting.tables import titled

    tables().print(titled("plan, before retraining", plan_table(rows)))
    click.echo(f"would write into {folder}, with this recipe:\n\n{recipe.to_toml()}")


def _show(report: dict[str, Any], folder: Path, options: dict[str, Any]) -> None:
    if options["as_json"]:
        click.echo(json.dumps(report, indent=1))
    elif not options["quiet"]:
        from compressor.reporting.console import tables
        from compressor.reporting.tables import show

        show(report, str(folder), tables(), verbose=options["verbose"])
