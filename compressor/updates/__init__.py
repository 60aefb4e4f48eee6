"""Updates over the air: what changed from one artifact to the next (`docs/updates.md`)."""

from compressor.updates.diffing import diff
from compressor.updates.patching import patch

__all__ = ["diff", "patch"]
