"""k-means of weights, side by side with scikit-learn: CPU seconds and inertia, one thread each.

    python -m compressor.benchmarks.clustering [--size 25000000] [--clusters 256] [--init linear]
                                               [--peer-size 1000000] [-o RESULT.json]

Both get the same float32 normal values and the same start, and run in turn in one process. At
``--peer-size`` both stop after 300 iterations, scikit-learn's default; ours then also runs for its
own default. At ``--size`` only ours runs: scikit-learn would take about an hour. Inertias are those
that each codebook has with float64 distances, so neither tool's own rounding counts.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.benchmarks.environment import environment
from compressor.quantization.clustering import INITS, Init, cluster, initial_centroids
from compressor.quantization.runs import Doubles, Floats, Runs

RESULT = Path(__file__).parent / "results" / "clustering.json"

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    described = environment()  # before the work, so that the load is that of others
    rows = compare(normal(arguments.peer_size), arguments.clusters, arguments.init)
    values = normal(arguments.size)
    for init in INITS:
        rows.append(ours(values, arguments.clusters, init))
        show(rows[-1])
    result = {"benchmark": "clustering", "threads": 1, "environment": described, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    described = argparse.ArgumentParser(prog="python -m compressor.benchmarks.clustering")
    described.add_argument("--size", type=int, default=25_000_000, help="values, for ours alone")
    described.add_argument("--clusters", type=int, default=256)
    described.add_argument("--init", choices=INITS, default="linear", help="start, for both")
    described.add_argument("--peer-size", type=int, default=1_000_000, help="values, for both")
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def normal(n: int) -> Floats:
    """n values like those of a layer: normal, standard deviation 0.05."""
    values = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
    values *= np.float32(0.05)
    return values


def compare(values: Floats, k: int, init: Init) -> list[Row]:
    """scikit-learn with its default of 300 iterations, ours with as many and with its default."""
    rows: list[Row] = []
    for tool, limit in ((scikit_learn, 300), (ours, 300), (ours, None)):
        rows.append(tool(values, k, init, limit))
        for measure in ("inertia", "cpu_seconds"):
            rows[-1][f"{measure}_ratio"] = rows[-1][measure] / rows[0][measure]
        show(rows[-1])
    return rows


def ours(values: Floats, k: int, init: Init, limit: int | None = None) -> Row:
    seconds, found = timed(lambda: cluster(values, k, init=init, max_iterations=limit))
    exact = inertia(values, found.codebook)
    return row("compressor", values, k, init, found.iterations, seconds, exact)


def scikit_learn(values: Floats, k: int, init: Init, limit: int | None) -> Row:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    start = initial_centroids(np.sort(values), k, init).reshape(-1, 1)
    model = KMeans(k, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=limit or 300)
    with threadpool_limits(1):
        seconds, _ = timed(lambda: model.fit(values.reshape(-1, 1)))
    centers = np.sort(model.cluster_centers_[:, 0])
    exact = inertia(values, centers)
    return row("scikit-learn", values, k, init, int(model.n_iter_), seconds, exact)


def inertia(values: Floats, codebook: Floats | Doubles) -> float:
    """Sum of squared distances to the nearest entry, in float64, run by run."""
    runs = Runs(np.sort(values))
    bounds = runs.nearest(codebook)
    parts = zip(np.split(runs.ordered, bounds[1:-1]), codebook, strict=True)
    return float(sum(np.sum((part.astype(np.float64) - entry) ** 2) for part, entry in parts))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, all its threads together, and what ``work`` returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def row(
    tool: str, values: Floats, k: int, init: Init, iterations: int, seconds: float, exact: float
) -> Row:
    return {
        "tool": tool,
        "values": len(values),
        "clusters": k,
        "init": init,
        "iterations": iterations,
        "cpu_seconds": round(seconds, 3),
        "inertia": exact,
    }


def show(row: Row) -> None:
    ratio = f"{row['inertia_ratio']:.9f}" if "inertia_ratio" in row else "-"
    print(
        f"{row['tool']:<12} {row['values']:>11,} values  {row['clusters']:>5} clusters  "
        f"{row['init']:<8} {row['iterations']:>5} iterations  {row['cpu_seconds']:>8.2f} s of CPU  "
        f"inertia / scikit-learn's {ratio}",
        flush=True,
    )


if __name__ == "__main__":
    main()
