"""What a person sees: progress on stderr, tables on stdout."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from compressor.progress import Progress, Step

QUIET_SECONDS = 30.0  # between lines, where stderr is a file and not a screen


def tables() -> Console:
    """Where tables go: stdout, as wide as the terminal; in a pipe wide enough for all columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def table_of(names: tuple[str, ...], figures: tuple[str, ...]) -> Table:
    """An empty table in the one style of this tool: names to the left, figures to the right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in names:
        table.add_column(heading, overflow="fold", min_width=max(len(heading), 8))
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


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
        begin = last = time.monotonic()
        done = 0

        def step(note: str = "") -> None:
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if now - last >= QUIET_SECONDS:
                last = now
                left = (now - begin) * (total - done) / done
                where = f"{100 * done // max(1, total)} %, {_duration(left)} left"
                # What is measured until it is certain may take longer than it was told to.
                self.note(f"{title}: {where if done <= total else 'longer than planned'}  {note}")

        return step


def _duration(seconds: float) -> str:
    """Rounded to what a person wants to know: 40 s, 12 min, 1 h 5 min."""
    minutes = max(1, round(seconds / 60))
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
