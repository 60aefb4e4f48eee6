"""Settings of every stage as frozen dataclasses: the one place with defaults."""

from compressor.settings.channels import (
    CRITERIA,
    ROUNDS,
    SCOPES,
    Channels,
    Criterion,
    Round,
    Scope,
    parse_ratio,
)
from compressor.settings.checks import Rules
from compressor.settings.files import (
    ENCODE_PROFILES,
    WIDTHS,
    DataSpec,
    Encode,
    EncodeProfile,
    Export,
    Width,
)
from compressor.settings.prune import Prune, parse_sensitivity
from compressor.settings.quantize import (
    INITS,
    NOISE,
    RATE,
    TERNARY,
    Calibrate,
    Init,
    Share,
    parse_bits,
    parse_rate,
)
from compressor.settings.training import AUGMENTS, DISTILL, FROM_NOTHING, OPTIMIZERS, Training

__all__ = [
    "AUGMENTS",
    "CRITERIA",
    "DISTILL",
    "ENCODE_PROFILES",
    "FROM_NOTHING",
    "INITS",
    "NOISE",
    "OPTIMIZERS",
    "RATE",
    "ROUNDS",
    "SCOPES",
    "TERNARY",
    "WIDTHS",
    "Calibrate",
    "Channels",
    "Criterion",
    "DataSpec",
    "Encode",
    "EncodeProfile",
    "Export",
    "Init",
    "Prune",
    "Round",
    "Rules",
    "Scope",
    "Share",
    "Training",
    "Width",
    "parse_bits",
    "parse_rate",
    "parse_ratio",
    "parse_sensitivity",
]
