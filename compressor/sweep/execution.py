"""A sweep: what is finished already, the rest run here or on a cluster, a row for each point."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.progress import Progress
from compressor.reporting.environment import environment
from compressor.reporting.sweeps import measured
from compressor.reporting.tables import percent
from compressor.sweep import cluster, local
from compressor.sweep.folder import POINTS, SweepFolder, clear, finished
from compressor.sweep.grid import Axis, label
from compressor.sweep.plan import Point, Settled
from compressor.sweep.point import Job

if TYPE_CHECKING:
    from distributed import Client

Json = dict[str, Any]
SCHEMA = 1


class Sweep:
    """Checked points, and the folder in which they end."""

    def __init__(
        self,
        model: Path,
        axes: Sequence[Axis],
        points: Sequence[Point],
        folder: SweepFolder,
        settled: Settled,
        *,
        data_root: Path | None = None,
        trust_pickle: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.axes, self.points = model, axes, points
        self.folder, self.settled = folder, settled
        self.data_root, self.trust_pickle = data_root, trust_pickle
        self.progress = progress or Progress()
        self.rows = {point.place.name: self._row(point) for point in points}

    def waiting(self) -> list[Point]:
        """The points that have yet to run, by what is on disk."""
        return [each for each in self.points if self._row(each)["state"] != "finished"]

    def execute(
        self, *, jobs: int = 1, client: "Client | None" = None, force: bool = False
    ) -> Json:
        """Run what is waiting, in ``jobs`` processes or by ``client``; ``sweep.json``'s content.

        A point that fails is a row that says why; the others go on.
        """
        with self.folder.at_work(force=force):
            self.rows = {each.place.name: self._row(each) for each in self.points}
            waiting = {each.place.name: each for each in self.waiting()}
            for point in waiting.values():
                clear(point.place, point.fingerprint)
            self.folder.write(self.content())
            done = len(self.points) - len(waiting)
            if done:
                self.progress.note(f"{done} of {len(self.points)} points are finished already")
            with (
                closing(self._run(waiting, jobs, client)) as outcomes,
                self.progress.task("sweep", len(waiting)) as advance,
            ):
                for left, (name, error) in zip(
                    range(len(waiting) - 1, -1, -1), outcomes, strict=True
                ):
                    said = self._ended(waiting[name], error)
                    advance(f"{left} to go")
                    self.progress.note(f"{label(waiting[name].settings)}: {said} ({left} to go)")
                    self.folder.write(self.content())
            return self.content()

    def content(self) -> Json:
        """What ``sweep.json`` holds."""
        return {
            "schema": SCHEMA,
            "of": self.folder.identity,
            "model": self.model.name,
            "axes": {axis.key: list(axis.values) for axis in self.axes},
            "settled": self.settled.known,
            "points": list(self.rows.values()),
            "environment": environment(),
        }

    def _row(self, point: Point, error: str | None = None) -> Json:
        """A point as it stands on disk, and why it failed where it did."""
        report = finished(point.place, point.fingerprint)
        row: Json = {"settings": point.settings, "folder": f"{POINTS}/{point.place.name}"}
        if report is not None:
            return {**row, "state": "finished", **measured(report)}
        return (
            {**row, "state": "waiting"}
            if error is None
            else {**row, "state": "failed", "error": error}
        )

    def _ended(self, point: Point, error: str | None) -> str:
        """Note how a point ended, in a line; only what is on disk counts as finished."""
        foreign = "its report is of another run: the worker has other data or another version"
        row = self.rows[point.place.name] = self._row(point, error or foreign)
        if row["state"] == "failed":
            return f"failed: {row['error']}"
        accuracy = "" if row["accuracy"] is None else f", {percent(row['accuracy'])}"
        return f"{row['bytes']:,} bytes{accuracy}"

    def _run(
        self, points: Mapping[str, Point], jobs: int, client: "Client | None"
    ) -> Generator[tuple[str, str | None], None, None]:
        root = None if self.data_root is None else str(self.data_root)
        tasks = {
            name: Job(
                model=str(self.model),
                recipe=point.recipe.to_toml(),
                folder=str(point.place),
                threads=point.recipe.threads or 1,
                data_root=root,
                trust_pickle=self.trust_pickle,
            )
            for name, point in points.items()
        }
        if client is None:
            return local.run(tasks, jobs)
        return cluster.run(tasks, client, Path.cwd(), self.progress)
