"""What ends every run once its stages are done: channels told, hidden units ordered, all encoded.

A search for settings ends what it tries by the same functions (``targets/trials.py``), so that the
bytes it finds are those that the run will write.
"""

from contextlib import suppress

from compressor import __version__, artifact, loading
from compressor.channels import Kept, order_channels, remove_dead
from compressor.errors import CompressorError, StageError
from compressor.examples import one_image
from compressor.network import Network, Row
from compressor.progress import Progress
from compressor.recipe import Recipe
from compressor.storage import plain_state, stored_tensors

_DIGITS = 16
"""Of the sums in an artifact: whole ones would be a fiftieth of the smallest files."""
_SMALL = 5_000_000
"""Parameters below which the smallest file is worth a slower decoder."""


def cut(network: Network, kept: str) -> None:
    """Tell the network that of its channels only ``kept`` (``Kept.to_json``) are left."""
    earlier, later = network.channels, Kept.from_json(kept)
    joined = later if earlier is None else Kept.from_json(earlier).then(later)
    network.channels = joined.to_json()


def leading(network: Network, channels: str) -> str:
    """``channels``, those left, told by the first ones of each layer, where they fit as well.

    Runs of indices cost bytes. Where layers' channels hang together (groups of convolutions), the
    first ones may be no choice at all: then it stays as it was.
    """
    fewer = Kept.from_json(channels).leading()
    try:
        fresh, _ = loading.build(network.arch)
        cut = fewer.apply(fresh.eval(), one_image(network.example).cpu())
    except CompressorError:
        return channels
    now = {name: value.shape for name, value in plain_state(network.module).items()}
    same = now == {name: value.shape for name, value in plain_state(cut).items()}
    return fewer.to_json() if same else channels


def ordered(network: Network) -> Row:
    """Hidden units change places; which they were is then of no meaning, only how many."""
    found = order_channels(network)
    if network.channels is not None:
        network.channels = leading(network, network.channels)
    return found


def closed(network: Network, recipe: Recipe) -> None:
    """What a run does in two steps, in one: dead channels go, hidden units are ordered."""
    device = next(network.module.parameters()).device
    with suppress(StageError):
        removal = remove_dead(network)
        if removal is not None:
            network.module.to(device)
            cut(network, removal.row()["kept"])
    if recipe.encode.order:
        with suppress(StageError):
            ordered(network)


def encoded(network: Network, recipe: Recipe, skeleton: bytes, progress: Progress) -> bytes:
    """The artifact of ``network`` as it is now; ``skeleton`` is its ONNX graph without weights."""
    settings, channels = recipe.encode, network.channels
    stored = stored_tensors(network, settings.width, settings.biases)
    with progress.task("encode", len(stored)) as advance:
        return artifact.encode(
            stored,
            graph=skeleton if settings.graph else None,
            metadata={
                "tool": f"compressor {__version__}",
                "network": network.arch,
                "source": network.source[:_DIGITS],
                "recipe": recipe.digest()[:_DIGITS],
                **({"channels": channels} if channels else {}),
            },
            profile=_profile(network, recipe),
            progress=lambda name, done, total: advance(name),
        )


def _profile(network: Network, recipe: Recipe) -> artifact.Profile:
    """The writer's profile; "auto" is the smallest that a network of this size decodes soon."""
    wanted = recipe.encode.profile
    if wanted != "auto":
        return wanted
    weights = sum(value.numel() for value in network.module.parameters())
    return "best" if weights < _SMALL else "fast"
