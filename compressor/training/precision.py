"""Mixed precision: what is computed in 16 bits, and what keeps small gradients from vanishing.

Weights, gradients of weights, masks, codebooks, the loss and the optimiser stay in fp32: torch's
autocast casts the operands of convolutions and matrix products only.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Where a network is run: nothing for "fp32", autocast for "bf16" and "fp16"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


def scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling for "fp16", whose exponent is too short for gradients; else it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
