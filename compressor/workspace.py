"""The output folder of a run: what may be there, what is kept between stages, how it is finished.

While a run is under way, its folder holds ``.stages/``::

    run.json            model, data, recipe and tool that the run is of (its fingerprint)
    STAGE.json          written last when a stage is finished: what it reports
    STAGE.training-N    its N-th training after its last whole epoch, until the stage is finished
    STAGE.safetensors   the network after a stage
    output.*            the outputs, until all are ready

Every file is written whole or not at all. At the end the outputs appear in the folder itself, one
atomic rename each, ``report.json`` last, and ``.stages/`` goes. So at every moment the folder
shows whether it is finished, and of which run; a run killed at any point resumes from its last
finished stage, and a training in it from its last whole epoch.

Of several ranks (``distributed``) the first alone has the folder. The others know what it held
when it was opened, and write nothing.
"""

import glob
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from compressor import distributed
from compressor.errors import OutputError
from compressor.files import (
    DATA,
    REPORT,
    check_folder,
    explained,
    parsed,
    pieces_of,
    read_json,
    write_chunks,
    write_together,
)
from compressor.tensors import chunks

Json = dict[str, Any]


class Workspace:
    """One run's folder; :meth:`open` decides whether the run may use it."""

    def __init__(self, folder: Path, fingerprint: Json) -> None:
        self.folder = folder
        self.stages = folder / ".stages"
        # Which bytes come out depends on how many ranks share a batch: sums are rounded.
        ranks = {"processes": distributed.world()} if distributed.world() > 1 else {}
        self.fingerprint = {**fingerprint, **ranks}
        self._held: dict[str, bytes] = {}

    def open(self, *, resume: bool, force: bool) -> Json | None:
        """Make the folder ready. Returns the finished report where there is nothing left to do.

        Raises :class:`OutputError` where the folder is in use and neither ``resume`` nor ``force``
        is given, or where what is to be resumed is of another run.
        """
        report = distributed.by_first(lambda: self._open(resume=resume, force=force))
        if distributed.world() > 1 and report is None:
            self._held = distributed.by_first(self._content)
        return report

    def _content(self) -> dict[str, bytes]:
        held = [path for path in self.stages.iterdir() if path.suffix != DATA]  # the first's alone
        return {path.name: path.read_bytes() for path in held}

    def _open(self, *, resume: bool, force: bool) -> Json | None:
        used = self.check(resume=resume, force=force)
        if resume and used and (report := self._continue()) is not None:
            return report
        if not resume:
            self._discard()
        self._begin()
        return None

    def check(self, *, resume: bool, force: bool) -> bool:
        """Whether the folder is in use; raises :class:`OutputError` where a run may not use it."""
        unfinished = (self.stages / "run.json").exists()
        return check_folder(self.folder, force=resume or force, unfinished=unfinished)

    def _begin(self) -> None:
        """Make ``.stages/run.json``; where that fails, leave the place as it was."""
        way = (*reversed(self.stages.parents), self.stages)
        new = next((path for path in way if not path.exists()), None)
        try:
            with explained(self.folder):
                self.stages.mkdir(parents=True, exist_ok=True)
            self._write_json(self.stages / "run.json", self.fingerprint)
        except OutputError:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)
            raise

    def _continue(self) -> Json | None:
        """The report of a finished run, None for an unfinished one; refuses those of others."""
        report = read_json(self.folder / REPORT) or {}
        same = report.get("fingerprint") == self.fingerprint
        if same and all((self.folder / name).exists() for name in report["files"].values()):
            self._discard()
            return report
        begun = read_json(self.stages / "run.json")
        other = begun if begun is not None else report.get("fingerprint")
        if other is None and any(path != self.stages for path in self.folder.iterdir()):
            raise OutputError(
                f"{self.folder} holds other files and no run to resume: choose another folder "
                "with -o, or overwrite with --force"
            )
        if other is not None and other != self.fingerprint:
            keys = {**self.fingerprint, **other}
            parts = [key for key in keys if other.get(key) != self.fingerprint.get(key)]
            raise OutputError(
                f"{self.folder} is of another run ({', '.join(parts)} changed): "
                "repeat the command it was begun with, or start over with --force"
            )
        if begun is None:
            self._discard()  # left by a run that was killed while it cleared up
        return None

    def finished(self, stage: str) -> Json | None:
        """What a finished stage reported, or None where it has yet to run."""
        name = f"{stage}.json"
        return parsed(self.read(name)) if self.has(name) else None

    def finish(self, stage: str, report: Json) -> None:
        """Mark a stage as finished; the last thing that it writes."""
        self.write(f"{stage}.json", _json(report))

    def has(self, name: str) -> bool:
        """Whether there is a file of that name to :meth:`read`."""
        return (self.stages / name).exists() if distributed.is_first() else name in self._held

    def save(self, stage: str, state: dict[str, Tensor]) -> None:
        """Keep the network's ``state_dict`` after ``stage``."""
        if not distributed.is_first():
            return
        write_chunks(self.stages / f"{stage}.safetensors", chunks(state))

    def saved(self, stage: str) -> dict[str, Tensor]:
        """The ``state_dict`` after ``stage``. Raises :class:`OutputError` where it is damaged."""
        name = f"{stage}.safetensors"
        try:
            return safetensors.torch.load(self.read(name))
        except (OSError, KeyError, SafetensorError):
            path = self.stages / name
            raise OutputError(f"{path} is damaged or gone: start over with --force") from None

    def write(self, name: str, content: bytes) -> None:
        """Keep an output, or anything else a later stage needs."""
        if distributed.is_first():
            write_chunks(self.stages / name, (content,))

    def path(self, name: str) -> Path:
        """Where the first rank keeps what :meth:`write` is given."""
        return self.stages / name

    def read(self, name: str) -> bytes:
        """What :meth:`write` kept."""
        return (self.stages / name).read_bytes() if distributed.is_first() else self._held[name]

    def forget_trainings(self, stage: str) -> None:
        """The stage is finished: no training of it is resumed any more."""
        if distributed.is_first():
            for path in self.stages.glob(f"{glob.escape(stage)}.training-*"):
                path.unlink()

    def publish(self, outputs: Mapping[str, str], report: Json) -> None:
        """Put the outputs (kept name -> final name) in place, the report last; clear up."""
        write_together(
            {self.folder / name: pieces_of(self.stages / kept) for kept, name in outputs.items()}
        )
        for name in (*outputs.values(), REPORT):
            for part in self.folder.glob(f".{glob.escape(name)}.*.part"):
                part.unlink(missing_ok=True)  # of a run that was killed while it published
        self._write_json(self.folder / REPORT, {"fingerprint": self.fingerprint, **report})
        self._discard()

    def leave(self) -> None:
        """A stage failed: where none has finished there is nothing to resume, and nothing stays."""
        if not distributed.is_first():
            return
        if any(path.stem != "run" for path in self.stages.glob("*.json")):
            return
        self._discard()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _discard(self) -> None:
        with explained(self.stages):
            if self.stages.exists():
                # Without run.json a half-removed folder cannot be taken for a run to resume.
                (self.stages / "run.json").unlink(missing_ok=True)
                shutil.rmtree(self.stages)

    def _write_json(self, path: Path, content: Json) -> None:
        write_chunks(path, (_json(content),))


def _json(content: Json) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
