"""A recipe, run stage by stage: dense -> channels -> prune -> share -> encode -> export -> report.

Each step does its work or, where an earlier run finished it, takes up what that run saved. Both
ways lead through the same bytes, so a resumed run ends where an undisturbed one does.

Several ranks (``distributed``) take the stages that train together, from the same numbers; what
is measured and written in between and afterwards is the first one's.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compressor import __version__, artifact, distributed, preflight
from compressor.channels import Kept, remove_channels, remove_dead
from compressor.closing import cut, encoded, ordered
from compressor.determinism import deterministic, find_device
from compressor.errors import CompressorError, StageError
from compressor.examples import one_image
from compressor.export import onnx
from compressor.files import size_of
from compressor.layers import bake, restore
from compressor.memory import give_back
from compressor.network import Context, Network, StageReport
from compressor.progress import Progress
from compressor.pruning import prune
from compressor.quantization import calibrate, share
from compressor.recipe import Recipe
from compressor.reporting.figures import Figures
from compressor.reporting.histograms import distributions
from compressor.reporting.inspection import breakdown, contents, parts_by_layer
from compressor.reporting.record import record
from compressor.reporting.render import rendered
from compressor.runtime_files import DENSE, RuntimeFiles
from compressor.storage import load_decoded, plain_state, skeleton_of, stored_tensors
from compressor.targets.trials import accuracy
from compressor.targets.verdict import Found, verdict
from compressor.training.checkpoints import Checkpoints
from compressor.training.data import Data
from compressor.training.losses import frozen
from compressor.workspace import Json, Workspace

# What the outputs are called until they are published, whatever the network is called.
DCZ, RECIPE = "output.dcz", "recipe.toml"
RIGHT = "dense.right"
"""The dense network's score of each test image: of a classification a byte, right or wrong."""


class Run:
    """One recipe on one network, with its data and its folder.

    To make one checks what can be checked beforehand (``preflight``) and touches no file;
    ``plan`` is what the recipe will do to each layer. A recipe that was ``found`` for targets is
    held against them at the end.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        data: Data | None,
        folder: Path,
        progress: Progress,
        found: Found | None = None,
    ) -> None:
        self.network = network
        self.recipe, self.found = recipe, found
        self.plan = preflight.check(network, recipe, data)
        self.context = Context(data, find_device(recipe.device), recipe.seed, progress)
        self.workspace = Workspace(folder, fingerprint(network, recipe, data))
        self.reports: dict[str, Json] = {}
        self.figures = Figures(network, data)
        self.files = RuntimeFiles(
            *(network, recipe, self.context, self.workspace, self._decoded),
            macs=self.figures.macs[""],
            fp32_bytes=self.figures.fp32_bytes,
        )

    def execute(self, *, resume: bool = False, force: bool = False) -> Json:
        """Run all stages; returns the report, which is also in the folder as ``report.json``."""
        finished = self.workspace.open(resume=resume, force=force)
        if finished is not None:
            self.context.progress.note(f"{self.workspace.folder} is finished already")
            for stage in finished["stages"].values():
                self._cut_as(stage.get("kept"))
            return finished
        try:
            return self._stages()
        except CompressorError:
            self.workspace.leave()
            raise

    def _stages(self) -> Json:
        with deterministic(self.recipe.threads, self.recipe.device):
            self.network.module.to(self.context.device)
            distilled = any(each.distill for each in self.recipe.trainings.values())
            if distilled and self.context.data is not None:
                # As loaded, before any stage: one that is resumed into has the same teacher.
                self.context.teacher = frozen(self.network.module)
            if distributed.is_first():
                self._step("dense", self._dense, lambda: None)
            if self.recipe.channels is not None:
                self._train_stage("channels", remove_channels, self.recipe.channels)
            if self.recipe.prune is not None:
                self._train_stage("prune", prune, self.recipe.prune)
            if self.recipe.share is not None:
                self._train_stage("share", share, self.recipe.share)
            if self.recipe.calibrate is not None:
                self._train_stage("calibrate", calibrate, self.recipe.calibrate)
            report = distributed.by_first(self._outputs)
        if not distributed.is_first():
            self._cut_as(report["stages"]["dead"].get("kept"))
        return report

    def _outputs(self) -> Json:
        self._step("dead", self._dead, lambda: self._take_up("dead"))
        if self.recipe.encode.order:
            self._step("order", self._order, self._take_up_order)
        self._step("encode", self._encode, self._decode)
        self._step("export", self.files.write, lambda: None)
        report = {"fingerprint": self.workspace.fingerprint, **self._report()}
        if self.found is not None:
            report["targets"], missed = self._verdict(self.found)
            report["missed"] = [*report["missed"], *missed]
        self.workspace.write(RECIPE, self.recipe.to_toml().encode())
        pages = rendered(report)
        for name, content in pages.items():
            self.workspace.write(name, content)
        outputs = {DCZ: f"{self.network.name}.dcz", **self.files.outputs(), RECIPE: RECIPE}
        self.workspace.publish(outputs | {name: name for name in pages}, report)
        return report

    def _step(self, name: str, work: Callable[[], Json], resume: Callable[[], None]) -> None:
        finished = self.workspace.finished(name)
        if finished is not None:
            resume()
            self.context.progress.note(f"{name}: finished earlier")
        else:
            self.context.progress.note(f"{name} ...")
            begin = time.perf_counter()
            finished = work()
            finished["seconds"] = time.perf_counter() - begin
            self.workspace.finish(name, finished)
            give_back()
        self.reports[name] = finished

    def _train_stage(self, name: str, stage: Callable[..., StageReport], settings: Any) -> None:
        """Each begins from the recipe's seed, not from where the last one left the generators:
        so one that is resumed into draws the same numbers."""

        def work() -> Json:
            self.context.checkpoints = Checkpoints(self.workspace, name)
            return self._changed(name, stage(self.network, settings, self.context))

        self._step(name, work, lambda: self._take_up(name))
        self.workspace.forget_trainings(name)

    def _changed(self, name: str, report: StageReport) -> Json:
        """Keep the network as a stage left it; what it reports, with what was measured of it."""
        self._resized(report.details.get("kept"))
        if not distributed.is_first():
            return {}
        self.workspace.save(name, self.network.module.state_dict())
        # Without entropy coding: the paper's size after this stage, before the next one.
        blob = artifact.encode(stored_tensors(self.network, "fp32"), profile="flat")
        self.workspace.write(f"{name}.dcz", blob)
        measured = self.figures.of_stage(blob, report.layers)
        return {**measured, "history": report.history, **report.details}

    def _take_up(self, name: str) -> None:
        """The network as a stage left it in an earlier run; nothing where it changed nothing."""
        finished = self.workspace.finished(name) or {}
        if "bytes" not in finished:
            return
        self._cut_as(finished.get("kept"))
        module = self.network.module.cpu()
        restore(module, self.workspace.saved(name))
        self.network.module = module.to(self.context.device)
        self._resized(finished.get("kept"))

    def _cut_as(self, kept: str | None) -> None:
        """The sizes that a stage of an earlier run left; its values come later."""
        if kept is not None:
            module = self.network.module.cpu()
            bake(module)
            self.network.module = Kept.from_json(kept).apply(
                module, one_image(self.network.example)
            )

    def _dead(self) -> Json:
        """Channels that have no effect go. Where that cannot be done without loss, they stay."""
        try:
            removal = remove_dead(self.network)
        except StageError as error:
            return {"why": str(error)}
        if removal is None:
            return {"removed": []}
        self.network.module.to(self.context.device)
        return self._changed("dead", StageReport([], [], removal.row()))

    def _order(self) -> Json:
        try:
            found = ordered(self.network)
        except StageError as error:
            return {"why": str(error)}
        self.workspace.save("order", self.network.module.state_dict())
        return {**found, "channels": self.network.channels}

    def _take_up_order(self) -> None:
        finished = self.workspace.finished("order") or {}
        if "why" in finished:
            return
        module = self.network.module.cpu()
        restore(module, self.workspace.saved("order"))
        self.network.module = module.to(self.context.device)
        self.network.channels = finished["channels"]

    def _resized(self, kept: str | None) -> None:
        """Where channels went, count and trace anew what was counted and traced of the network."""
        if kept is None:
            return
        cut(self.network, kept)
        self.figures.recount()
        self._trace()

    def _dense(self) -> Json:
        plain = plain_state(self.network.module)
        path = self.workspace.path(DENSE)
        onnx.write(path, self._trace(), plain, {})
        found = self.figures.of_dense(size_of(path))
        if self.figures.right is not None:
            self.workspace.write(RIGHT, self.figures.right.tobytes())
        return found

    def _trace(self) -> bytes:
        """The ONNX graph of the network as it is now, without its weights."""
        skeleton = skeleton_of(self.network, self.recipe.export.opset)
        self.workspace.write("graph.onnx", skeleton)
        return skeleton

    def _encode(self) -> Json:
        skeleton = self.workspace.read("graph.onnx")
        blob = encoded(self.network, self.recipe, skeleton, self.context.progress)
        self.workspace.write(DCZ, blob)
        self._decode()
        held = contents(artifact.decode(blob))
        before = self.reports["dense"]["distributions"]
        right = None if self.context.data is None else self.workspace.read(RIGHT)
        return {
            **self.figures.of_stage(blob, parts_by_layer(held)),
            "change": self.figures.change(right),
            "breakdown": breakdown(held),
            "distributions": distributions(self.network.module, before),
        }

    def _decode(self) -> None:
        """From here on the network is what the artifact decodes to, and nothing else."""
        load_decoded(self.network.module, self._decoded().tensors)

    def _decoded(self) -> artifact.Artifact:
        return artifact.decode(self.workspace.read(DCZ))

    def _report(self) -> Json:
        return record(
            self.network,
            self.recipe,
            self.context.data,
            fp32_bytes=self.figures.fp32_bytes,
            stages=self.reports,
            files={"artifact": f"{self.network.name}.dcz", **self.files.named()},
            times=self.files.latency(),
        )

    def _verdict(self, found: Found) -> tuple[Json, list[str]]:
        written = len(self.workspace.read(DCZ))
        now = accuracy(self.network, self.context.data)
        return verdict(found, written, self.figures.fp32_bytes, now)


def fingerprint(network: Network, recipe: Recipe, data: Data | None) -> Json:
    """What must agree for one run to continue another."""
    return {
        "model": network.source,
        "data": data.fingerprint if data else None,
        "recipe": recipe.digest(),
        "tool": __version__,
    }
