"""Weight sharing: clustering -> codebooks -> centroid fine-tuning (Deep Compression, section 3)."""

from compressor.quantization.calibrated import calibrate
from compressor.quantization.stage import share

__all__ = ["calibrate", "share"]
