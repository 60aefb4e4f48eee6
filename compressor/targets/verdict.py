"""What was searched for, what was tried, and whether the run that followed met it."""

from dataclasses import dataclass, field

from compressor.network import Row
from compressor.recipe import Recipe
from compressor.settings import Targets


@dataclass(frozen=True)
class Found:
    """The settings found for ``targets``, as a recipe.

    ``accuracy`` is the dense network's on ``images`` validation images (None without any);
    ``by`` what layers were ranked by; ``tried`` a row for each trial, in order.
    """

    targets: Targets
    recipe: Recipe
    accuracy: float | None
    images: int
    by: str
    tried: list[Row] = field(default_factory=list)


def verdict(
    found: Found, written: int, fp32_bytes: int, accuracy: float | None
) -> tuple[Row, list[str]]:
    """A report's row on the run's own ``written`` bytes and ``accuracy``, and what was missed."""
    targets, missed = found.targets, list[str]()
    lost = None
    if accuracy is not None and found.accuracy is not None:
        lost = 100 * (found.accuracy - accuracy)
    most = None if targets.size is None else bytes_of(targets.size, fp32_bytes)
    if most is not None and written > most:
        smallest = min((row["bytes"] for row in found.tried if row["bytes"]), default=written)
        least = "; nothing that was tried is as small" if smallest > most else ""
        missed.append(
            f"the artifact has {written:,} bytes, {fp32_bytes / written:.1f} times fewer than the "
            f"dense network, where {most:,} were the target{least}"
        )
    if targets.max_drop is not None and not (lost is not None and within(lost, targets.max_drop)):
        missed.append(
            f"accuracy on {found.images:,} validation images fell by {lost or 0.0:.2f} points, "
            f"not by at most {targets.max_drop:g}"
        )
    row = {
        "size": targets.size,
        "max_drop": targets.max_drop,
        "bytes": written,
        "most_bytes": most,
        "validation_images": found.images,
        "validation_dense": found.accuracy,
        "validation_accuracy": accuracy,
        "drop": lost,
        "ranked_by": found.by,
        "tried": found.tried,
    }
    return row, missed


def bytes_of(size: float, fp32_bytes: int) -> int:
    """The most whole bytes that are this part of the dense network's."""
    return int(size * fp32_bytes + 1e-6)


def within(lost: float, max_drop: float) -> bool:
    """Whether so many points are no more than allowed, rounding of floats aside."""
    return lost <= max_drop + 1e-9
