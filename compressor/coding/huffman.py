"""Optimal length-limited prefix codes, in canonical form.

A code is an int8 array of codeword lengths, one per symbol; ``ABSENT`` marks a symbol that the
code cannot write. Lengths alone fix the codewords: sorted by (length, symbol), they count upward
(Deep Compression, section 4, stores Huffman codes in this way).

Every code is *complete*: its Kraft sum is exactly one, so each bit pattern decodes to something
and no decoder table has a hole. A code for one symbol has length 0 and writes no bits at all,
which is a Kraft sum of one as well. A Huffman code spends less than one bit per symbol above the
entropy; on a nearly constant sequence that is still many times the entropy, and one bit is the
least that two symbols can cost.
"""

import numpy as np
import numpy.typing as npt

from compressor.errors import ArtifactError

ABSENT = -1
MAX_LENGTH = 15
"""Longest codeword, in bits, for up to 2^15 used symbols."""
LONGEST = 17
"""Longest codeword of any code: what 2^16 + 1 symbols of equal weight need."""

Lengths = npt.NDArray[np.int8]
Counts = npt.NDArray[np.int64]


def optimal_lengths(counts: Counts, limit: int = MAX_LENGTH) -> Lengths:
    """Return the code that writes ``counts`` in the fewest bits with no codeword over ``limit``.

    Package-merge (Larmore and Hirschberg, 1990). With the leaves sorted by weight, each level's
    list is the leaves merged with the packages (pairs) of the level above it. The cheapest
    2n - 2 items of the last list name the solution: every time a leaf is among the chosen items
    of a level, its codeword grows by one bit. Among equal weights the order is leaves first, then
    by symbol, so the result is the same everywhere.

    Args:
        counts: (n,) occurrences of each symbol; symbols with count 0 become ``ABSENT``.
        limit: raised to ceil(log2 used) where fewer bits cannot tell the used symbols apart.
    """
    lengths = np.full(len(counts), ABSENT, dtype=np.int8)
    used = np.flatnonzero(counts)
    used = used[np.argsort(counts[used], kind="stable")]
    if len(used) < 2:
        lengths[used] = 0
        return lengths
    leaves = counts[used]
    levels = _leaves_among(leaves, max(limit, _ceil_log2(len(used))))
    depth = np.zeros(len(used) + 1, dtype=np.int64)
    chosen = 2 * len(used) - 2
    for leaf_count in reversed(levels):
        taken = int(leaf_count[chosen])
        depth[taken] += 1  # the lightest `taken` leaves grow; summed from the heavy end below
        chosen = 2 * (chosen - taken)
    lengths[used] = np.cumsum(depth[::-1])[-2::-1]
    return lengths


def _leaves_among(leaves: Counts, limit: int) -> list[Counts]:
    """For each package-merge level, how many of its first i items are leaves, i = 0..size."""
    items = leaves
    levels = [np.arange(len(leaves) + 1)]
    for _ in range(limit - 1):
        packages = items[: len(items) // 2 * 2].reshape(-1, 2).sum(axis=1)
        merged = np.concatenate([leaves, packages])
        order = np.argsort(merged, kind="stable")
        items = merged[order]
        levels.append(np.concatenate([[0], np.cumsum(order < len(leaves))]))
    return levels


def flat_lengths(symbols: int) -> Lengths:
    """Return the code for ``symbols`` equally likely symbols: floor or ceil of log2, in that order.

    This is "fixed width, no entropy coding" (truncated binary), read by the same decoder. For a
    power of two every codeword is the symbol's own binary number.
    """
    width = _ceil_log2(symbols)
    lengths = np.full(symbols, width, dtype=np.int8)
    lengths[: (1 << width) - symbols] = width - 1
    return lengths


def check_complete(lengths: Lengths) -> None:
    """Raise `ArtifactError` unless the codewords fill the code space exactly, with none too long.

    An over-full set is no prefix code and would write past a decoder's table; an under-full one
    leaves bit patterns that decode to nothing.
    """
    used = lengths[lengths != ABSENT].astype(np.int64)
    if len(used) and not 0 <= used.min() <= used.max() <= LONGEST:
        raise ArtifactError(f"a code has a codeword of {used.max()} bits; at most {LONGEST} may be")
    kraft = int(np.sum(np.int64(1) << (LONGEST - used)))
    if kraft != 1 << LONGEST:
        state = "over-full" if kraft > 1 << LONGEST else "incomplete"
        raise ArtifactError(f"a code is {state}: its codewords must fill the code space exactly")


def canonical_order(lengths: Lengths) -> npt.NDArray[np.int64]:
    """Return the used symbols in the order of their codewords: by length, then by symbol."""
    order = np.argsort(lengths, kind="stable")
    return order[int(np.count_nonzero(lengths == ABSENT)) :].astype(np.int64)


def canonical_codes(lengths: Lengths) -> npt.NDArray[np.uint64]:
    """Return (n,) codewords, each in the low bits of its entry; 0 where a symbol is absent.

    With codewords as intervals of a code space of 2^L points, a codeword starts where the
    previous one ends.
    """
    order = canonical_order(lengths)
    codes = np.zeros(len(lengths), dtype=np.uint64)
    if len(order):
        slack = int(lengths.max()) - lengths[order].astype(np.int64)
        width = np.int64(1) << slack
        codes[order] = (np.cumsum(width) - width) >> slack
    return codes


def coded_bits(lengths: Lengths, counts: Counts) -> int:
    """Return the bits that symbols occurring ``counts`` times take, the table excluded."""
    used = np.flatnonzero(counts)
    return int(np.sum(counts[used] * lengths[used].astype(np.int64)))


def _ceil_log2(value: int) -> int:
    return (value - 1).bit_length()
