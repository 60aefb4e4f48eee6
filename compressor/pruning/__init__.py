"""Weights: thresholds -> masks -> retraining (Deep Compression, section 2)."""

from compressor.pruning.stage import prune

__all__ = ["prune"]
