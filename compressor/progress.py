"""How long work tells that it is going on, without knowing who listens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Step(Protocol):
    """Called once for each unit of work done, with a short note on where it stands."""

    def __call__(self, note: str = "") -> None: ...


class Progress:
    """The silent listener, and the interface of the others (``reporting.console``)."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Step]:
        """A piece of work of ``total`` units; yields the function to call after each."""
        yield lambda note="": None

    def note(self, text: str) -> None:
        """One line that a person may want to read now."""
