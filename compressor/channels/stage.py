"""The stage: remove channels, prove the cut, fit weights, re-estimate norms, retrain."""

from dataclasses import replace

from compressor import distributed
from compressor.channels.cutting import Kept
from compressor.channels.plan import Plan, nothing_removed
from compressor.channels.speed import macs_for_latency
from compressor.errors import StageError
from compressor.network import Context, Network, Row, StageReport
from compressor.settings import Channels
from compressor.training.fit import fit
from compressor.training.recalibration import recalibrate


def remove_channels(network: Network, settings: Channels, context: Context) -> StageReport:
    """Cut the network in ``settings.rounds`` equal factors; its module may become another one.

    Each cut is proved (``proof.py``) before it takes the place of what was. Raises
    :class:`StageError` where nothing can be removed or a cut cannot be proved.
    """
    history: list[Row] = []
    kept = Kept({}, False)
    details: Row = {}
    tried: list[dict[str, float]] = []
    if settings.target_latency is not None:
        target = settings.target_latency
        part, tried = distributed.by_first(
            lambda: macs_for_latency(network, settings, context, target)
        )
        settings = replace(settings, target_latency=None, target_macs=part)
    plan = Plan(network, settings, context)
    groups, frozen, dense = plan.rows(), plan.dependencies.frozen(), plan.macs.dense
    for step in range(1, settings.rounds + 1):
        plan = Plan(network, settings, context) if step > 1 else plan
        removed = plan.removed(step, dense)
        if len(removed):
            made = plan.cut(removed)
            fitted = plan.fit(made.module, removed)
            kept = kept.then(Kept.of(plan.dependencies, removed, rewritten=made.rewritten))
            network.module = made.module
            proof, why = made.proof.row(), made.why
            details = {"proof": proof, "why_rewritten": why, "reconstructed": fitted}
        if context.data is not None and settings.recalibrate:
            recalibrate(network.module, context.data, context, images=settings.recalibrate)
        title = "retrain" if settings.rounds == 1 else f"retrain {step}/{settings.rounds}"
        epochs = fit(network.module, settings.retrain, context, title)
        history += [{"round": step, **epoch.row()} for epoch in epochs]
    if not kept.layers:
        raise StageError(nothing_removed(settings))
    for row in groups:
        row["after"] = len(kept.layers.get(row.pop("axis"), range(row["before"])))
    details.update(groups=groups, frozen=frozen, kept=kept.to_json(), tried=tried)
    return StageReport([], history, {"rewritten": kept.rewritten, **details})
