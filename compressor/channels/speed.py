"""How fast a cut network really is: exported and run, beside the dense one."""

from dataclasses import replace

from compressor.channels.plan import Plan
from compressor.errors import StageError
from compressor.examples import one_image
from compressor.export import onnx
from compressor.network import Context, Network
from compressor.reporting.latency import latency
from compressor.settings import Channels, Export
from compressor.storage import plain_state, skeleton_of

TRIES = 6
NEAR = 0.03
"""A latency within this part below its target is near enough."""


def macs_for_latency(
    network: Network, settings: Channels, context: Context, target: float
) -> tuple[float, list[dict[str, float]]]:
    """The part of the MACs at which ONNX Runtime takes ``target`` of its time.

    Found by trying: cut, export, run side by side with the dense network by one thread, correct the
    guess by what was measured. Also returns what was tried. Raises :class:`StageError` where
    nothing that was tried is fast enough.
    """
    dense = exported(network)
    tried: list[dict[str, float]] = []
    part = target
    plan = Plan(network, settings, context)
    for _ in range(TRIES):
        removed = plan.leaving(part)
        if not len(removed):
            break
        small = plan.cut(removed).module
        models = {"dense": dense, "cut": exported(replace(network, module=small))}
        ms = latency(models, tuple(one_image(network.example).shape), progress=context.progress)[
            "ms"
        ]
        found = ms["cut"]["median"] / ms["dense"]["median"]
        tried.append({"macs": plan.macs.left(removed), "latency": found, "asked": part})
        context.progress.note(
            f"{100 * tried[-1]['macs']:.0f} % of the MACs takes {100 * found:.0f} % of the time"
        )
        if target * (1 - NEAR) <= found <= target:
            break
        part = min(0.99, max(0.01, part * (target * (1 - NEAR / 2)) / found))
    enough = [each for each in tried if each["latency"] <= target]
    if not enough:
        best = min((each["latency"] for each in tried), default=1.0)
        raise StageError(
            f"no cut that was tried takes {target:g} of the dense network's time; the fastest "
            f"takes {best:.2f}: allow more with --target-latency, or lower channels.keep"
        )
    return max(enough, key=lambda each: each["macs"])["asked"], tried


def exported(network: Network) -> bytes:
    """The ONNX file of a network as it is."""
    skeleton = skeleton_of(network, Export().opset)
    return onnx.build(skeleton, plain_state(network.module), {})
