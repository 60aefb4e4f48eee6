"""What several commands need: options, option types, one line for an error."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])


class _File(click.Path):
    """A path; an empty one, as from an unset shell variable, is not the working directory."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


_PATIENCE = 2.0
"""Seconds; torchrun looks at its processes ten times a second."""

FILE = _File(path_type=Path)


def show_error(message: str, hint: str | None = None) -> None:
    """One line on stderr.

    Of several processes that torchrun has started, the first speaks at once and the others after a
    while: what all would say is said once, as torchrun ends them where one has failed.
    """
    text = " ".join(message.split())
    rank = os.environ.get("RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    if rank != "0":
        time.sleep(_PATIENCE)
        text = f"process {rank}: {text}"
    click.echo(f"error: {text}" + (f" ({hint})" if hint else ""), err=True)


def data_options(function: F) -> F:
    """``--data`` and what belongs to it."""
    options = (
        click.option(
            "--data",
            metavar="SPEC",
            help="mnist, fashion-mnist, cifar10, cifar100, digits, a folder of class folders, "
            "FILE.npz or FILE.py:make.",
        ),
        click.option(
            "--data-root",
            type=FILE,
            metavar="FOLDER",
            help="Where named data sets lie or are downloaded to "
            "[default: $COMPRESS_DATA_ROOT or ~/.cache/compressor].",
        ),
        click.option("--mean", metavar="R,G,B", help="Channel means, of values scaled to 0..1."),
        click.option("--std", metavar="R,G,B", help="Channel standard deviations."),
    )
    for option in reversed(options):
        function = option(function)
    return function


arch_arguments = click.option(
    "--arch-arg",
    "arch_args",
    metavar="NAME=VALUE",
    multiple=True,
    help="An argument of --arch's function, as in TOML: width=0.5. May be given several times.",
)


def architecture(arch: str | None, arguments: tuple[str, ...]) -> str | None:
    """``--arch`` with its ``--arch-arg``. Raises :class:`UsageError`."""
    if not arguments:
        return arch
    if arch is None:
        raise UsageError("--arch-arg has no effect without --arch: give that too")

    from compressor import architectures

    return architectures.with_arguments(arch, arguments)


def loading_options(function: F) -> F:
    """How a network is loaded, and what it runs on."""
    options = (
        click.option(
            "--arch",
            metavar="NAME",
            help="The network's class: a name of this tool's, torchvision:NAME, timm:NAME, "
            "FILE.py:FUNCTION or MODULE:FUNCTION; without it, recognised from the weights.",
        ),
        arch_arguments,
        click.option(
            "--task",
            metavar="SPEC",
            help="What the network is for, if not classification: FILE.py:NAME, a class with loss "
            "and score.",
        ),
        click.option("--input-shape", "shape", metavar="1,C,H,W", help="One input, batch first."),
        click.option("--seed", type=int, help="Seed of everything random."),
        click.option("--threads", type=int, help="CPU threads [default: all cores]."),
        click.option("--device", help="cpu, cuda or cuda:N."),
        click.option(
            "--trust-pickle", is_flag=True, help="Load a pickled module: this can run any code."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def by_flag(message: str, settings: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """``message`` with options in place of the settings (option -> setting) they stand for."""
    for name, key in settings.items():
        if options[name] is not None and message.startswith(f"{key} "):
            message = f"{flag(name)}{message.removeprefix(key)}"
    if " has no effect without " in message:
        for name, key in settings.items():
            message = re.sub(rf"(?<= ){re.escape(key)}(?=[ :])", flag(name), message)
    return message.replace(" without calibrate.noise:", " without --quantize auto:")


def flag(name: str) -> str:
    """The option of a parameter: ``finetune_epochs`` is --finetune-epochs."""
    return f"--{name.replace('_', '-')}"


def input_shape(text: str | None) -> tuple[int, ...] | None:
    """``[name:]1,3,32,32`` -> (3, 32, 32). Raises :class:`UsageError`."""
    if text is None:
        return None
    try:
        sizes = tuple(int(part) for part in text.rpartition(":")[2].split(","))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1 or sizes[0] != 1:
        raise UsageError(
            f"--input-shape {text}: give all sizes, a batch of 1 first, such as 1,3,224,224"
        )
    return sizes[1:]


def listening(quiet: bool) -> "Progress":
    """The progress that commands show: none with ``-q``."""
    from compressor.progress import Progress
    from compressor.reporting.console import ConsoleProgress

    return Progress() if quiet else ConsoleProgress()
