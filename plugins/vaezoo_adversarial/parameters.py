"""The trainable parameters of a model, split into encoder and decoder."""

from __future__ import annotations

from torch import nn

from vaezoo import BaseVAE, VaezooError


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def decoder_parameters(model: BaseVAE) -> list[nn.Parameter]:
    """The trainable parameters of p(x|z): those of `model.decoder` and `model.likelihood`."""
    parts = [getattr(model, name, None) for name in ("decoder", "likelihood")]
    found = [p for part in parts if isinstance(part, nn.Module) for p in trainable(part)]
    if not found:
        raise VaezooError("this model has no parameters in `decoder` or `likelihood` to train")
    return found


def encoder_parameters(model: BaseVAE) -> list[nn.Parameter]:
    """All other trainable parameters: those of q(z|x), and of a learned prior."""
    excluded = {id(parameter) for parameter in decoder_parameters(model)}
    return [parameter for parameter in trainable(model) if id(parameter) not in excluded]
