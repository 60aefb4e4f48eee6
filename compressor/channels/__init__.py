"""Structure: which channels depend on which, what they are worth, and their removal.

``labels`` and ``propagation`` (with ``rules``) find the dependencies on the exported graph,
``dependencies`` makes groups of them, ``importance`` and ``allocation`` choose, ``removal`` and
``rewriting`` cut, ``proof`` proves, and ``stage`` does all of it in a run.
``constants`` and ``liveness`` find channels without effect, which ``dead`` removes without loss.
"""

from compressor.channels.cutting import Kept
from compressor.channels.dead import remove_dead
from compressor.channels.ordering import order_channels
from compressor.channels.plan import preview
from compressor.channels.stage import remove_channels

__all__ = ["Kept", "order_channels", "preview", "remove_channels", "remove_dead"]
