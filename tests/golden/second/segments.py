"""Segments: the pieces of a large tensor, each with streams of its own."""

from dataclasses import dataclass

from tests.golden.second.reading import Bytes, require

LONGEST = 2**20


@dataclass(frozen=True)
class Segment:
    """How many weights it has, how many entries of each kind, and its streams."""

    weights: int
    kept: int
    fillers: int
    streams: bytes


def read_segments(source: Bytes, n: int, counts: tuple[int, int] | None) -> list[Segment]:
    """All segments, to the end of the payload; ``counts`` are kept weights and fillers of all."""
    sizes = [min(LONGEST, n - start) for start in range(0, n, LONGEST)]
    if len(sizes) == 1:
        return [Segment(n, *(counts or (0, 0)), source.rest())]
    heads = []
    for size in sizes:
        kept, fillers = (source.varint(), source.varint()) if counts else (0, 0)
        require(kept + fillers <= size, "kept weights plus fillers over a segment's weights")
        heads.append((size, kept, fillers, source.varint()))
    if counts:
        sums = tuple(sum(head[place] for head in heads) for place in (1, 2))
        require(sums == counts, "segments that do not add up to the tensor's")
    found = [Segment(*head[:3], source.take(head[3])) for head in heads]
    for each in found if counts else ():
        require(each.kept or not (each.fillers or each.streams), "streams without kept weights")
    source.end()
    return found
