"""What a person sees: progress on stderr, tables on stdout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from compressor.progress import Progress, Step

QUIET_SECONDS = 30.0  # between lines, where stderr is a file and not a screen


def tables() -> Console:
    """Where tables go: stdout, as wide as the terminal; in a pipe wide enough for all columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


class ConsoleProgress(Progress):
    """A bar with the remaining time on a terminal; a line now and then in a log."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Step]:
        if self.console.is_terminal:
            with self._bar(title, total) as step:
                yield step
        else:
            yield self._lines(title, total)

    def note(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Step]:
        bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        with bars:
            task = bars.add_task(title, total=total, note="")

            def step(note: str = "") -> None:
                bars.update(task, advance=1, note=note)

            yield step

    def _lines(self, title: str, total: int) -> Step:
        done, last = 0, time.monotonic()

        def step(note: str = "") -> None:
            nonlocal done, last
            done += 1
            if time.monotonic() - last >= QUIET_SECONDS:
                last = time.monotonic()
                self.note(f"{title}: {100 * done // max(1, total)} %  {note}")

        return step
