"""The parameters of the two directions of a model, for phases that train them apart."""

from __future__ import annotations

from torch import nn

from vaezoo import BaseVAE, VaezooError


def trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def decoder_parameters(model: BaseVAE) -> list[nn.Parameter]:
    """Those of p(x|z): `model.decoder` and `model.likelihood`, by BaseVAE's convention."""
    parts = [getattr(model, name, None) for name in ("decoder", "likelihood")]
    found = [p for part in parts if isinstance(part, nn.Module) for p in trainable(part)]
    if not found:
        raise VaezooError("this model does not tell which of its parameters are the decoder's")
    return found


def encoder_parameters(model: BaseVAE) -> list[nn.Parameter]:
    """All the others: those of q(z|x), and of the prior where it has any."""
    others = {id(parameter) for parameter in decoder_parameters(model)}
    return [parameter for parameter in trainable(model) if id(parameter) not in others]
