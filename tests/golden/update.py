"""Write ``update/``: two artifacts and the patch between them, held to the byte by `test_updates`.

    python -m tests.golden.update

Only a change of the format may change them.
"""

from pathlib import Path

import numpy as np

from compressor.artifact import Shared, encode
from compressor.updates import diff

FOLDER = Path(__file__).parent / "update"


def pair() -> tuple[bytes, bytes]:
    """A small network before and after: every way that a patch has, but for a whole tensor."""
    rng = np.random.default_rng(7)
    book = np.array([-1, -0.5, 0.25, 0.75, 2], dtype=np.float32)
    indices = np.where(rng.random((12, 30)) < 0.3, rng.integers(1, 6, (12, 30)), 0)
    moved = np.where(rng.random((12, 30)) < 0.2, indices % 5 + 1, indices)
    later = np.where(indices, moved, 0)
    bias = rng.normal(size=12).astype(np.float32)
    fixed = {"norm": np.ones(5, dtype=np.float32)}
    before = {"w": Shared(indices.astype(np.uint8), book), "b": bias, **fixed}
    after = {"w": Shared(later.astype(np.uint8), book * np.float32(1.25)), "b": bias * 2, **fixed}
    given = {"new": rng.integers(0, 9, 7)}
    old, new = encode(before, profile="best"), encode({**after, **given}, profile="best")
    return old, new


def main() -> None:
    old, new = pair()
    FOLDER.mkdir(exist_ok=True)
    for name, content in (("old.dcz", old), ("new.dcz", new), ("update.dczd", diff(old, new))):
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
