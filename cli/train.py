"""``compress train``: a dense network to begin with."""

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.cli.shared import FILE, by_flag, data_options, listening
from compressor.errors import OutputError, UsageError
from compressor.files import check_writable
from compressor.recipe import from_table, to_table
from compressor.settings import FROM_NOTHING, DataSpec, Training

if TYPE_CHECKING:
    from compressor.training.dense import Trained

TRAINING = (
    *("epochs", "lr", "batch_size", "weight_decay", "optimizer", "augment", "slimming"),
    "precision",
)
# option -> the setting that it changes
SETTINGS = {
    **{name: name for name in TRAINING},
    **{name: f"data.{name}" for name in ("validation", "mean", "std")},
}


@click.command(short_help="Train a network from nothing.")
@click.argument("arch")
@data_options
@click.option("-o", "--output", type=FILE, metavar="FILE", help="[default: ARCH.pt]")
@click.option("--epochs", type=int, help="[default: 20]")
@click.option("--lr", type=float, help="Highest learning rate [default: 0.05].")
@click.option("--batch-size", type=int, help="[default: 128]")
@click.option("--weight-decay", type=float, help="[default: 0.0005]")
@click.option("--optimizer", help="sgd or adam [default: sgd].")
@click.option("--augment", help="auto, none, flip-crop, affine or elastic [default: auto].")
@click.option(
    "--slimming",
    type=float,
    metavar="LAMBDA",
    help="L1 penalty on the scales of batch norms, 1e-5 or 1e-4 in the paper, for channels to be "
    "removed by their scales [default: 0].",
)
@click.option("--precision", help="fp32, bf16 or fp16 [default: fp32].")
@click.option("--compile", is_flag=True, default=None, help="Train through torch.compile.")
@click.option(
    "--validation", type=float, help="Fraction of the training images kept aside [default: 0.1]."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default="0",
    help="Seed of everything random.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: all cores].")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option(
    "--resume", is_flag=True, help="Continue an interrupted training from its last whole epoch."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def train(arch: str, data: str | None, output: Path | None, **options: Any) -> None:
    """Train ARCH (see --help of "compress run" for its forms) on --data and save its state_dict.

    The validation images are taken from the training images; the last epoch is what is saved and
    reported. Several processes share the work where torchrun starts them:
    "torchrun --nproc-per-node 2 -m compressor train ...".
    """
    if data is None:
        raise UsageError("training needs --data, for example --data mnist")
    target = output or Path(f"{arch.rpartition(':')[2]}.pt")
    if options["force"] and options["resume"]:
        raise UsageError("--force starts over and --resume continues: give one of them")
    try:
        spec, training = _settings(data, options)
    except UsageError as error:
        raise UsageError(by_flag(str(error), SETTINGS, options)) from None

    from compressor import distributed
    from compressor.training import dense

    with distributed.started(options["device"]):
        distributed.by_first(lambda: _check_target(target, options["force"]))
        trained = dense.train(
            arch,
            spec,
            training,
            root=options["data_root"],
            seed=options["seed"],
            threads=options["threads"],
            device=options["device"],
            progress=listening(options["quiet"] or not distributed.is_first()),
            output=target,
            resume=options["resume"],
            force=options["force"],
        )
        if distributed.is_first() and not options["quiet"]:
            _show(trained, arch, target, options["seed"])


def _show(trained: "Trained", arch: str, target: Path, seed: int) -> None:
    from compressor.reporting.tables import percent

    held = (
        "" if math.isnan(trained.validation) else f"{percent(trained.validation)} on validation, "
    )
    click.echo(
        f"{target}: {arch}, epoch {len(trained.history)} (the last), seed {seed}: "
        f"{held}{percent(trained.test)} on {trained.test_images:,} test images"
    )


def _settings(data: str, options: dict[str, Any]) -> tuple[DataSpec, Training]:
    """Data and training settings, through the recipe's own checks and defaults."""
    given = {key: value for key, value in options.items() if value is not None}
    spec = {item.name: given[item.name] for item in fields(DataSpec) if item.name in given}
    changed = {item.name: given[item.name] for item in fields(Training) if item.name in given}
    return (
        from_table(DataSpec, {"spec": data, **spec}, section="data"),
        from_table(Training, {**to_table(FROM_NOTHING), **changed}),
    )


def _check_target(target: Path, force: bool) -> None:
    """Fail before hours of training, not after."""
    if target.exists() and not force:
        raise OutputError(f"{target} exists: add --force to overwrite, or choose another with -o")
    if target.suffix not in (".pt", ".pth", ".safetensors"):
        raise UsageError(f"-o {target}: the name must end in .pt, .pth or .safetensors")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: there is no folder {target.parent}")
    check_writable(target)
