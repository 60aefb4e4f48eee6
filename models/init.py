"""He initialisation, shared by the residual networks."""

from __future__ import annotations

from torch import nn


def he_normal(module: nn.Module) -> None:
    """Draw every convolution of ``module`` from N(0, 2 / n), n = k * k * output channels.

    He et al. 2015 (arXiv:1502.01852, section 2.2, the backward form of eq. 14): the variance
    of the gradients then stays constant through layers of convolution and ReLU. Linear layers
    keep torch's default; batch norm starts as the identity. Uses torch's global generator.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
