"""What a run is to reach, where its user says how small or how good and not how."""

from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.settings.checks import number, settle


def parse_size(value: object) -> float:
    """A part of the dense network's fp32 bytes: ``25%`` or 0.25; over 0 and under 1."""
    text = value.strip() if isinstance(value, str) else value
    try:
        if isinstance(text, str) and text.endswith("%"):
            size = number("", text[:-1], 0.0, 100.0) / 100
        else:
            size = number("", text, 0.0, 1.0)
    except UsageError:
        size = 0.0
    if not 0 < size < 1:
        raise UsageError(
            f"target size is {value!r}: it must be a part of the dense network's bytes, over 0 and "
            "under 100%, such as 25% or 0.25"
        )
    return size


def parse_times(value: object) -> float:
    """How many times smaller, as a part of the dense network's bytes; over 1."""
    try:
        ratio = number("", value, 1.0, 1e12)
    except UsageError:
        ratio = 1.0
    if ratio == 1:
        raise UsageError(
            f"target ratio is {value!r}: it must be how many times smaller than the dense "
            "network's bytes, a number over 1, such as 40"
        )
    return 1 / ratio


@dataclass(frozen=True)
class Targets:
    """Of one run, at least one of two; the settings that meet them are searched for.

    ``size`` is the most that the artifact, graph included where it holds one, may be of four bytes
    for each parameter of the dense network. ``max_drop`` is by how many percentage points the
    accuracy on validation images may fall.
    """

    size: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.size is None and self.max_drop is None:
            raise UsageError("targets: give a size, a max_drop, or both")
        if self.size is not None:
            settle(self, size=parse_size(self.size))
        if self.max_drop is not None:
            settle(self, max_drop=number("target max_drop", self.max_drop, 0.0, 100.0))
