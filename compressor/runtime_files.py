"""What a run leaves for runtimes: the dense ONNX file, and what ``--emit`` asks for besides.

All is made of what the artifact decodes to, kept in the workspace under names of its own until the
run publishes it, and measured there.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from compressor.artifact import Artifact
from compressor.examples import Example, inputs_of, random
from compressor.export import graph, onnx, optional, verify
from compressor.files import DATA, beside, gzip_size
from compressor.memory import give_back
from compressor.network import Context, Network
from compressor.recipe import Recipe
from compressor.reporting.latency import latency
from compressor.storage import released
from compressor.training.data import normalise
from compressor.workspace import Json, Workspace

# What they are called until they are published, whatever the network is called.
DENSE, ONNX = "dense.onnx", "output.onnx"
NAMED = "named.onnx"
"""An ONNX file with its weights beside it, once their name in the folder is known."""
LARGE = 1 << 28
"""Bytes of fp32 weights from which a network is not kept in memory beside its ONNX files."""
WORK, LEAST = 100_000_000_000, 4
"""Multiply-adds that outputs are compared by, and inputs that they are compared on at least."""


class RuntimeFiles:
    """The files of one run. ``decoded`` reads its artifact; sizes are the dense network's."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        context: Context,
        workspace: Workspace,
        decoded: Callable[[], Artifact],
        *,
        macs: int,
        fp32_bytes: int,
    ) -> None:
        self.network, self.recipe, self.context = network, recipe, context
        self.workspace, self.decoded = workspace, decoded
        self.macs, self.fp32_bytes = macs, fp32_bytes
        self.threads = recipe.threads or 1

    def write(self) -> Json:
        """Make all of them; what to report. The network is what the artifact decodes to.

        Raises :class:`ExportError` where the ONNX file does not compute what the network does.
        """
        settings = self.recipe.export
        path, decoded = self.workspace.path(ONNX), self.decoded()
        skeleton = decoded.graph or self.workspace.read("graph.onnx")
        # Not published yet, and written again where it proves wrong.
        onnx.write(path, skeleton, decoded.tensors(), decoded.metadata)
        inputs, kind = self._inputs()
        expected = verify.outputs(self.network.module, inputs)
        with self._lent():
            found = verify.compare_outputs(path, inputs, expected)
            give_back()
            kept = [self.workspace.path(name) for name in self._onnx()]
            zipped = sum(gzip_size(each, self.threads) for each in kept)
        difference = verify.within(found, settings.tolerance)
        self.network.module.to(self.context.device)
        return {
            "bytes": sum(each.stat().st_size for each in kept),
            "gzip_bytes": zipped,
            "opset": settings.opset,
            "compared_on": f"{difference.samples} {kind} inputs",
            **{f"difference_{key}": value for key, value in asdict(difference).items()},
            **self._further(inputs),
        }

    def outputs(self) -> dict[str, str]:
        """What each is kept as -> what it is called in the run's folder."""
        further = {_kept(suffix): self._name(suffix) for suffix in self._optional().values()}
        return {**self._onnx(), **further}

    def named(self) -> dict[str, str]:
        """What each is -> what it is called, for the report."""
        name = self._name("onnx")
        data = {"onnx_data": name + DATA} if self._is_large() else {}
        further = {kind: self._name(suffix) for kind, suffix in self._optional().items()}
        return {"onnx": name, **data, **further}

    def latency(self) -> Json:
        """Milliseconds of each in ONNX Runtime, beside the dense network."""
        further = self._optional().items()
        models: dict[str, bytes | Path] = {
            "dense": self.workspace.path(DENSE),
            "compressed": self.workspace.path(ONNX),
            **{kind: self.workspace.read(_kept(suffix)) for kind, suffix in further},
        }
        with self._lent():
            return latency(models, self._feed(), progress=self.context.progress)

    def _further(self, inputs: Example) -> Json:
        """Make the files that the recipe asks for besides; their rows."""
        settings, rows = self.recipe.export, Json()
        if not settings.emit:
            return rows
        path, one = self.workspace.path(ONNX), inputs_of(inputs)[0].numpy()
        model = path if self._is_large() else path.read_bytes()
        for kind, content, row in optional.outputs(
            model, one, settings, self.context, self.threads
        ):
            if content is None:
                rows.setdefault(optional.NOT_MADE, {})[kind] = row["why"]
                continue
            if kind in optional.SUFFIXES and isinstance(content, bytes):
                self.workspace.write(_kept(optional.SUFFIXES[kind]), content)
            rows[kind] = row
        return rows

    def _optional(self) -> dict[str, str]:
        """The files besides, by what their names end in; without those that could not be made."""
        gone = (self.workspace.finished("export") or {}).get(optional.NOT_MADE, {})
        wanted = optional.wanted(self.recipe.export)
        return {kind: suffix for kind, suffix in wanted.items() if kind not in gone}

    def _onnx(self) -> dict[str, str]:
        """What the ONNX file is kept as -> its name; of a large one, its weights' beside it."""
        name = self._name("onnx")
        if not self._is_large():
            return {ONNX: name}
        self.workspace.write(NAMED, onnx.renamed(self.workspace.read(ONNX), name))
        return {ONNX + DATA: name + DATA, NAMED: name}

    def _is_large(self) -> bool:
        """Whether the ONNX file has its weights beside it."""
        return beside(self.workspace.path(ONNX)).exists()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[None]:
        """Its memory is for ONNX Runtime while a large network is measured there."""
        if self.fp32_bytes < LARGE:
            yield
        else:
            with released(self.network.module, self.decoded().tensors):
                yield

    def _inputs(self) -> tuple[Example, str]:
        """As many as the recipe says or this network has time for, and where they are from."""
        count = min(self.recipe.export.samples, max(LEAST, WORK // max(1, self.macs)))
        data = self.context.data
        if data is not None and len(data.test.y):
            return normalise(data.test.x[:count], data).cpu(), f"{data.name} test"
        generator = torch.Generator().manual_seed(self.recipe.seed)
        return random(self.network.example, count, generator), "random"

    def _feed(self) -> Json:
        """One random input by the names that the ONNX files have."""
        example = random(self.network.example, 1, torch.Generator().manual_seed(0))
        names = graph.input_names(self.network.module, self.network.example)
        return {n: x.numpy() for n, x in zip(names, inputs_of(example), strict=True)}

    def _name(self, suffix: str) -> str:
        return f"{self.network.name}.{suffix}"


def _kept(suffix: str) -> str:
    return f"output.{suffix}"
