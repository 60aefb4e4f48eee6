"""k-means of weights, side by side with scikit-learn and the optimum: CPU seconds and inertia.

    python -m compressor.benchmarks.clustering [--size 25000000] [--clusters 256] [--init linear]
                                               [--peer-size 1000000] [-o RESULT.json]

All get the same float32 normal values and run in turn in one process, one thread each. At
``--peer-size`` scikit-learn and ours have the same start, and stop after 300 iterations,
scikit-learn's default; ours then also runs for its own default, and optimally. kmeans1d finds the
optimum, by dynamic programming over all values; it is left out where it is not installed (the extra
``bench``). At ``--size`` only ours runs: scikit-learn would take about an hour. Inertias are those
that each codebook has with float64 distances, so neither tool's own rounding counts.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.benchmarks.environment import environment
from compressor.quantization.clustering import (
    INITS,
    STARTS,
    Init,
    Start,
    cluster,
    initial_centroids,
)
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
    described.add_argument("--init", choices=STARTS, default="linear", help="start, for both")
    described.add_argument("--peer-size", type=int, default=1_000_000, help="values, for both")
    described.add_argument("-o", "--output", type=Path, default=RESULT)
    return described


def normal(n: int) -> Floats:
    """n values like those of a layer: normal, standard deviation 0.05."""
    values = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
    values *= np.float32(0.05)
    return values


def compare(values: Floats, k: int, start: Start) -> list[Row]:
    """Each tool on the same values; with ratios to scikit-learn, and to the optimum where known."""
    rows = [scikit_learn(values, k, start)]
    rows += [ours(values, k, start, 300), ours(values, k, start), ours(values, k, "optimal")]
    if importlib.util.find_spec("kmeans1d"):
        rows.append(kmeans1d(values, k))
    for row in rows:
        for measure in ("inertia", "cpu_seconds"):
            row[f"{measure}_ratio"] = row[measure] / rows[0][measure]
        if rows[-1]["tool"] == "kmeans1d":
            row["optimum_ratio"] = row["inertia"] / rows[-1]["inertia"]
        show(row)
    return rows


def ours(values: Floats, k: int, init: Init, limit: int | None = None) -> Row:
    seconds, found = timed(lambda: cluster(values, k, init=init, max_iterations=limit))
    exact = inertia(values, found.codebook)
    return row("compressor", values, k, init, found.iterations, seconds, exact)


def scikit_learn(values: Floats, k: int, init: Start) -> Row:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    start = initial_centroids(np.sort(values), k, init).reshape(-1, 1)
    model = KMeans(k, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=300)
    with threadpool_limits(1):
        seconds, _ = timed(lambda: model.fit(values.reshape(-1, 1)))
    centers = np.sort(model.cluster_centers_[:, 0])
    exact = inertia(values, centers)
    return row("scikit-learn", values, k, init, int(model.n_iter_), seconds, exact)


def kmeans1d(values: Floats, k: int) -> Row:
    import kmeans1d as peer

    seconds, found = timed(lambda: peer.cluster(values, k))
    # The same value twice where k exceeds the distinct values.
    exact = inertia(values, np.unique(found.centroids))
    return row("kmeans1d", values, k, "optimal", 0, seconds, exact)


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
    ratios = [
        f"{row[key]:.6f} x {peer}"
        for key, peer in (("inertia_ratio", "scikit-learn's"), ("optimum_ratio", "the optimum"))
        if key in row
    ]
    print(
        f"{row['tool']:<12} {row['values']:>11,} values  {row['clusters']:>5} clusters  "
        f"{row['init']:<8} {row['iterations']:>5} iterations  {row['cpu_seconds']:>8.2f} s of CPU  "
        f"inertia {', '.join([format(row['inertia'], '.6g'), *ratios])}",
        flush=True,
    )


if __name__ == "__main__":
    main()
