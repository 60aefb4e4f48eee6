"""Settings found for what a run is to reach: so small, or so little accuracy lost, or both."""

from compressor.targets.search import search
from compressor.targets.verdict import Found, verdict

__all__ = ["Found", "search", "verdict"]
