"""What the options of ``compress run`` say, as a recipe and targets."""

from dataclasses import replace
from typing import Any

from compressor.cli.shared import architecture, by_flag, flag, input_shape
from compressor.cli.targets import beginnings, check_free, targets_of
from compressor.errors import UsageError
from compressor.recipe import Recipe
from compressor.settings import Calibrate, Targets

# option -> the setting that it changes
SETTINGS = {
    "channels": "channels.ratio",
    "target_macs": "channels.target_macs",
    "target_latency": "channels.target_latency",
    "criterion": "channels.criterion",
    "round": "channels.round",
    "prune_sensitivity": "prune.sensitivity",
    "sparsity": "prune.sparsity",
    "scope": "prune.scope",
    "schedule": "prune.schedule",
    "rounds": "prune.rounds",
    "quantize": "share.bits",
    "rate_aware": "share.rate",
    "max_drop": "calibrate.max_drop",
    "profile": "encode.profile",
    "emit": "export.emit",
    "finetune_epochs": "share.finetune.epochs",
    "data": "data.spec",
    "mean": "data.mean",
    "std": "data.std",
    "arch": "arch",
    "task": "task",
    "seed": "seed",
    "threads": "threads",
    "device": "device",
}


def recipe_of(options: dict[str, Any]) -> tuple[Recipe, Targets | None]:
    """The recipe file's settings, changed by the options, changed by ``--set``; and targets."""
    source = options["recipe_file"]
    recipe = Recipe() if source is None else Recipe.read(source)
    arch = recipe.arch if options["arch"] is None else options["arch"]
    options["arch"] = architecture(arch, options["arch_args"])
    changes = {key: options[name] for name, key in SETTINGS.items() if options[name] is not None}
    targets = targets_of(recipe, options)
    if targets is not None:
        changes.pop("calibrate.max_drop", None)
    if options["quantize"] == "auto":  # in place of what the recipe quantizes with, if it does
        del changes["share.bits"]
        recipe = replace(recipe, share=None, calibrate=recipe.calibrate or Calibrate())
    elif options["quantize"] is not None:
        recipe = replace(recipe, calibrate=None)
    if options["weights_only"]:
        changes["encode.graph"] = False
    if "channels.criterion" in changes and _prunes_alone(recipe, changes):
        changes["prune.criterion"] = changes.pop("channels.criterion")
    if options["everywhere"]:
        changes |= _everywhere(recipe, changes)
    if targets is not None:
        named = {item.partition("=")[0].strip() for item in options["changes"]}
        check_free(named | changes.keys(), {key: name for name, key in SETTINGS.items()})
        changes |= beginnings(recipe)
    if options["freeze_residual"]:
        changes["channels.freeze_residual"] = True
    changes |= _retraining(recipe, changes, options)
    if options["shape"] is not None:
        changes["input_shape"] = input_shape(options["shape"])
    for item in options["changes"]:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: give KEY=VALUE, such as prune.retrain.lr=0.01")
        changes[key.strip()] = value.strip()
    try:
        recipe = recipe.with_settings(changes)
        if options["distill"] is not None:
            recipe = _distilled(recipe, options["distill"], changes)
    except UsageError as error:
        raise UsageError(by_flag(str(error), SETTINGS, options)) from None
    stages = (recipe.channels, recipe.prune, recipe.share, recipe.calibrate)
    if all(stage is None for stage in stages):
        raise UsageError(
            "nothing to do: give --channels (0.3), --prune-sensitivity (0.25), --sparsity (0.9), "
            "--quantize (5bit or auto), --target-size (25%), --max-drop (0.5) or --recipe FILE"
        )
    return recipe, targets


def _prunes_alone(recipe: Recipe, changes: dict[str, Any]) -> bool:
    """Whether weights are pruned and no channels are, so that ``--criterion`` is the weights'."""
    goals = ("channels.ratio", "channels.target_macs", "channels.target_latency")
    if recipe.channels is not None or any(goal in changes for goal in goals):
        return False
    return recipe.prune is not None or any(key.startswith("prune.") for key in changes)


def _everywhere(recipe: Recipe, changes: dict[str, Any]) -> dict[str, Any]:
    """``--global`` for channels and for weights pruned to a sparsity, whichever there are."""
    by_sparsity = recipe.prune is not None and recipe.prune.sparsity is not None
    weights = "prune.sparsity" in changes or (by_sparsity and "prune.sensitivity" not in changes)
    if weights and changes.get("prune.scope", "global") != "global":
        raise UsageError(f"--global and --scope {changes['prune.scope']}: give one of them")
    channels = recipe.channels is not None or any(key.startswith("channels.") for key in changes)
    present = {"channels": channels or not weights, "prune": weights}
    return {f"{stage}.scope": "global" for stage, there in present.items() if there}


def _retraining(recipe: Recipe, changes: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """``--epochs`` and ``--lr`` for every stage that removes something."""
    asked = {key.partition(".")[0] for key in changes}
    present = [name for name in ("channels", "prune") if name in asked or getattr(recipe, name)]
    given = {name: options[name] for name in ("epochs", "lr") if options[name] is not None}
    for name in given:
        if not present:
            raise UsageError(
                f"{flag(name)} has no effect without --channels, --prune-sensitivity or --sparsity"
            )
    return {f"{stage}.retrain.{name}": value for stage in present for name, value in given.items()}


def _distilled(recipe: Recipe, weight: float, changes: dict[str, Any]) -> Recipe:
    """Every training of the recipe distilled, except where ``--set`` has said otherwise."""
    keys = [f"{name}.distill" for name in recipe.trainings]
    if not keys:
        raise UsageError("--distill has no effect: the recipe has no stage that retrains")
    return recipe.with_settings({key: weight for key in keys if key not in changes})
