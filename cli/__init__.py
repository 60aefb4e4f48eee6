"""The command line: parse, call the library, print. Importing it imports no torch.

Exit codes: 0 done, 1 error, 2 usage, 3 a stated target was not met, 130 interrupted (Ctrl-C).
"""

import contextlib
import difflib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import click

from compressor.cli.artifacts import decompress, inspect, verify
from compressor.cli.bench import bench
from compressor.cli.export import export
from compressor.cli.recipes import recipe
from compressor.cli.report import report
from compressor.cli.run import run
from compressor.cli.scan import scan
from compressor.cli.shared import show_error
from compressor.cli.sweep import sweep
from compressor.cli.train import train
from compressor.cli.updates import diff, patch
from compressor.coding import native
from compressor.errors import CompressorError


class DefaultsToRun(click.Group):
    """``compress MODEL [options]`` is ``compress run MODEL [options]``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        if args and args[0] not in self.commands and args[0] not in own:
            self._refuse_misspelt(args[0])
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def _refuse_misspelt(self, word: str) -> None:
        """``compress inspct x.dcz`` means a command, not a checkpoint called inspct."""
        if Path(word).suffix or os.sep in word or word.startswith("-") or Path(word).exists():
            return
        close = difflib.get_close_matches(word, self.commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(self.commands)}"
        raise click.UsageError(f"there is neither a command nor a file called {word!r}; {hint}")


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"compress, version {metadata.version('compressor')} ({native.described()})")
        ctx.exit()


@click.group(
    cls=DefaultsToRun,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 target not met, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and what does the coding, and exit.",
)
def cli() -> None:
    """Compress a trained network: prune, share weights, encode, export.

    \b
    compress lenet5.pt --prune-sensitivity 0.25 --quantize 5bit --data mnist

    takes a PyTorch checkpoint through Deep Compression and writes a small artifact (.dcz), a
    dense ONNX file and a report. "compress MODEL" is short for "compress run MODEL"; its options
    are listed by "compress run --help".
    """


for command in (
    *(run, train, scan, sweep, bench, report),
    *(inspect, decompress, verify, export, diff, patch, recipe),
):
    cli.add_command(command)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code; users' mistakes get one line, no traceback."""
    with _noting_interrupts() as interrupts:
        try:
            code = cli.main(args=args, prog_name="compress", standalone_mode=False)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            # An import that Ctrl-C broke off may fail in any way, so what was raised may not say.
            interrupted = interrupts or isinstance(error, KeyboardInterrupt | click.Abort)
            code = _interrupted(error) if interrupted else _explain(error)
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """End the process; one that torchrun has started, without taking the interpreter down.

    Threads of the process group outlive it where something still refers to it. One that wants the
    interpreter after its end aborts the process, now and then, when all its work is done, and
    torchrun then stops the others too.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as always, and is remembered."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield seen  # in the background, or in somebody else's program
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted(error: BaseException) -> int:
    """A command may have said what to do next; click has wrapped its KeyboardInterrupt."""
    stop = error.__cause__ if isinstance(error, click.Abort) else error
    said = str(stop) if isinstance(stop, KeyboardInterrupt) else ""
    show_error(said or "interrupted")
    return 130


def _explain(error: BaseException) -> int:
    """One line on stderr and the exit code; raises again what no user can have caused."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    if isinstance(error, click.ClickException):
        show_error(error.format_message(), hint=_hint(error))
        return error.exit_code
    if isinstance(error, CompressorError):
        for note in getattr(error, "__notes__", ()):  # what the user's own code raised
            click.echo(note, err=True)
        show_error(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        show_error(f"{where}{(error.strerror or str(error)).lower()}")
        return 1
    if _out_of_memory(error):
        show_error("not enough memory for this network and its data")
        return 1
    raise error


def _out_of_memory(error: BaseException) -> bool:
    """torch tells it by a RuntimeError, whose subclass it has for CUDA only."""
    said = ("OutOfMemoryError", "DefaultCPUAllocator", "out of memory")
    return isinstance(error, MemoryError) or any(s in f"{type(error)} {error}" for s in said)


def _hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else None
